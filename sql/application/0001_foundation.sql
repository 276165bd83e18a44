-- What all workflow families use: tenants that the database itself separates, steps that run once, events and an audit trail.

do $$
begin
    create role app_tenant nologin;
exception when duplicate_object or unique_violation then
    null;  -- roles belong to the whole server; another database's migration has created it
end $$;

-- A login that creates a role may grant it, but since PostgreSQL 16 may not yet become it.
do $$
begin
    if current_setting('server_version_num')::integer >= 160000 then
        if not pg_has_role(current_user, 'app_tenant', 'SET') then
            execute format('grant app_tenant to %I with set true', current_user);
        end if;
    elsif not pg_has_role(current_user, 'app_tenant', 'MEMBER') then
        execute format('grant app_tenant to %I', current_user);
    end if;
exception when insufficient_privilege then
    raise exception using errcode = 'insufficient_privilege', message = 'role app_tenant was made by another login',
        hint = format('let it, or a superuser, run: grant app_tenant to %I', current_user);
end $$;

grant usage on schema app to app_tenant;
grant select on app.migration to app_tenant;  -- a worker reads the version

comment on schema app is 'The business data of the workflows; `outbox workflows migrate` makes it.';

create function app.current_tenant() returns uuid
language sql stable
return nullif(current_setting('app.tenant_id', true), '')::uuid;

comment on function app.current_tenant() is 'The tenant of this transaction, which app.enter set; null outside of one.';

create function app.enter(tenant_id uuid) returns void
language sql
as $$
    select set_config('app.tenant_id', coalesce(tenant_id::text, ''), true),
           -- When Temporal records a step as done, it must survive a crash of the server.
           case when current_setting('synchronous_commit') not in ('on', 'remote_apply')
               then set_config('synchronous_commit', 'on', true) end,
           set_config('role', 'app_tenant', true)
$$;

comment on function app.enter(uuid) is 'Until the end of the transaction see and change one tenant''s rows only, with any login, also a superuser.';

create function app.isolate(relation regclass) returns void
language plpgsql
as $$
begin
    execute format('alter table %s enable row level security', relation);
    execute format('alter table %s force row level security', relation);
    execute format('create policy tenant_isolation on %s using (tenant_id = app.current_tenant()) with check (tenant_id = app.current_tenant())', relation);
    execute format('grant select, insert, update, delete on %s to app_tenant', relation);
end $$;

comment on function app.isolate(regclass) is 'Separate the tenants in a table that has a column tenant_id. For migrations.';

create table app.tenant (
    tenant_id  uuid        primary key,
    name       text        not null check (name <> ''),
    status     text        not null default 'creating' check (status in ('creating', 'active', 'suspended', 'deleted')),
    created_at timestamptz not null default now(),
    changed_at timestamptz not null default now()
);
select app.isolate('app.tenant');

create function app.hold_tenant(held uuid, alone boolean default false) returns text
language plpgsql
as $$
declare
    key constant bigint := hashtextextended('app.tenant ' || held, 0);
begin
    if alone then
        perform pg_advisory_xact_lock(key);
    else
        perform pg_advisory_xact_lock_shared(key);
    end if;
    return (select t.status from app.tenant t where t.tenant_id = held);
end $$;

comment on function app.hold_tenant(uuid, boolean) is
    'Lock a tenant until the end of the transaction: shared for work, alone for its deletion. So all earlier work is there to be deleted, and later work sees the status, which is returned.';

create table app.step (
    tenant_id   uuid        not null,
    workflow_id text        not null,
    step        text        not null,
    activity    text        not null,
    result      json,
    done_at     timestamptz not null default clock_timestamp(),
    primary key (workflow_id, step)
);
select app.isolate('app.step');
comment on table app.step is 'Activities that were carried out, with their results: a repeated one returns its result again and does nothing.';

create table app.event (
    event_id    uuid        primary key default gen_random_uuid(),
    seq         bigint      generated always as identity,
    tenant_id   uuid        not null,
    stream      text        not null check (stream <> ''),
    type        text        not null check (type <> ''),
    data        jsonb       not null default '{}',
    workflow_id text,
    run_id      text,
    occurred_at timestamptz not null default clock_timestamp()
);
create index event_stream on app.event (tenant_id, stream, seq);
select app.isolate('app.event');
comment on table app.event is 'Domain events, only ever added to. Each is captured into the outbox under its own id, keyed by its stream.';

create table app.audit (
    audit_id    bigint      generated always as identity primary key,
    tenant_id   uuid        not null,
    workflow_id text        not null,
    run_id      text,
    actor       text        not null,
    action      text        not null,
    detail      jsonb       not null default '{}',
    happened_at timestamptz not null default clock_timestamp()
);
create index audit_workflow on app.audit (tenant_id, workflow_id, audit_id);
select app.isolate('app.audit');
revoke update, delete on app.event, app.audit from app_tenant;
revoke delete on app.step from app_tenant;
comment on table app.audit is 'The actions of persons and the system, by workflow: one table for all families.';
