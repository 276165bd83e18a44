-- The parts of a tenant: companies, users with their roles, and its first rows. Every key begins with the tenant.

create table app.company (
    tenant_id  uuid        not null references app.tenant (tenant_id),
    company_id uuid        not null default gen_random_uuid(),
    name       text        not null check (name <> ''),
    is_default boolean     not null default false,
    created_at timestamptz not null default now(),
    primary key (tenant_id, company_id)
);
create unique index company_default on app.company (tenant_id) where is_default;
select app.isolate('app.company');

create table app.app_user (
    tenant_id     uuid        not null references app.tenant (tenant_id),
    user_id       uuid        not null default gen_random_uuid(),
    email         text        not null check (email like '%_@_%'),
    first_name    text        not null default '',
    last_name     text        not null default '',
    password_hash text        not null check (password_hash ~ '^\$[a-z0-9-]+\$.+\$'),
    created_at    timestamptz not null default now(),
    primary key (tenant_id, user_id)
);
create unique index app_user_email on app.app_user (tenant_id, lower(email));
select app.isolate('app.app_user');
comment on column app.app_user.password_hash is 'As a PHC or crypt string, which names its algorithm; never a password.';

create table app.role (
    tenant_id uuid not null references app.tenant (tenant_id),
    role_id   uuid not null default gen_random_uuid(),
    name      text not null check (name <> ''),
    primary key (tenant_id, role_id),
    unique (tenant_id, name)
);
select app.isolate('app.role');

create table app.user_role (
    tenant_id uuid not null,
    user_id   uuid not null,
    role_id   uuid not null,
    primary key (tenant_id, user_id, role_id),
    foreign key (tenant_id, user_id) references app.app_user (tenant_id, user_id),
    foreign key (tenant_id, role_id) references app.role (tenant_id, role_id)
);
select app.isolate('app.user_role');

create table app.status (
    tenant_id uuid    not null references app.tenant (tenant_id),
    status_id uuid    not null default gen_random_uuid(),
    kind      text    not null check (kind <> ''),
    name      text    not null check (name <> ''),
    place     integer not null,
    is_closed boolean not null default false,
    primary key (tenant_id, status_id),
    unique (tenant_id, kind, name)
);
select app.isolate('app.status');
comment on table app.status is 'The states of a tenant''s objects, by kind of object, in order.';

create table app.billing_plan (
    tenant_id       uuid    not null references app.tenant (tenant_id),
    billing_plan_id uuid    not null default gen_random_uuid(),
    name            text    not null check (name <> ''),
    is_default      boolean not null default false,
    primary key (tenant_id, billing_plan_id),
    unique (tenant_id, name)
);
create unique index billing_plan_default on app.billing_plan (tenant_id) where is_default;
select app.isolate('app.billing_plan');

create table app.preference (
    tenant_id uuid not null references app.tenant (tenant_id),
    name      text not null check (name <> ''),
    value     text not null,
    primary key (tenant_id, name)
);
select app.isolate('app.preference');

create function app.tables_of_a_tenant() returns setof text
language sql stable
begin atomic
    with recursive
    owned as (
        select c.oid
        from pg_catalog.pg_class c
        join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
        where c.relnamespace = 'app'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
          and c.relname not in ('tenant', 'step', 'event', 'audit')
    ),
    refers as (
        select distinct k.conrelid as child, k.confrelid as parent
        from pg_catalog.pg_constraint k
        where k.contype = 'f' and k.conrelid <> k.confrelid
          and k.conrelid in (select oid from owned) and k.confrelid in (select oid from owned)
    ),
    depth (oid, steps, path) as (
        select oid, 0, array[oid] from owned
        union all
        select r.child, d.steps + 1, d.path || r.child
        from depth d join refers r on r.parent = d.oid
        where r.child <> all (d.path)
    )
    select oid::regclass::text from depth group by oid order by max(steps) desc, oid::regclass::text;
end;

comment on function app.tables_of_a_tenant() is
    'Every table with a tenant''s rows, also those of others, in an order in which none refers to one before it; without tenant itself and the journal: step, event, audit.';

create function app.delete_rows(relation text, most integer) returns integer
language plpgsql
as $$
declare
    deleted integer;
begin
    execute format(
        'delete from %s where tenant_id = app.current_tenant() and ctid = any (array('
        'select ctid from %1$s where tenant_id = app.current_tenant() limit $1))', relation::regclass)
    using most;
    get diagnostics deleted = row_count;
    return deleted;
end $$;

comment on function app.delete_rows(text, integer) is 'Delete up to so many of the current tenant''s rows; return how many there were.';
