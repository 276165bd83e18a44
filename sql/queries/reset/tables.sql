-- The tables and views of a schema, without the history's days. $1 text: schema
select c.relname
from pg_class c
where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname !~ '^history_[0-9]{8}$'
order by c.relname
