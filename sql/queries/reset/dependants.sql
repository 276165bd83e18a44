-- Objects outside of a schema that would be dropped with it: views, triggers, foreign keys, columns, publications' tables. Objects that
-- depend on those are left out. $1 text: schema
with own as (
    select 'pg_class'::regclass::oid as class, oid from pg_class where relnamespace = to_regnamespace($1)
    union all select 'pg_proc'::regclass::oid, oid from pg_proc where pronamespace = to_regnamespace($1)
    union all select 'pg_type'::regclass::oid, oid from pg_type where typnamespace = to_regnamespace($1)
)
select distinct regexp_replace(pg_describe_object(d.classid, d.objid, d.objsubid), '^rule "?_RETURN"? on ', '') as name
from pg_depend d
join own on d.refclassid = own.class and d.refobjid = own.oid
cross join lateral pg_identify_object_as_address(d.classid, d.objid, d.objsubid) a
where d.deptype in ('n', 'a') and (a.object_names[1] <> $1 or a.type = 'publication relation')
order by 1
