-- Organisations, their invitations, and a view that shows what happened to each event.

create table app.organization (
    organization_id uuid        primary key,
    tenant_id       uuid        not null,
    workflow_id     text        not null,
    name            text        not null,
    domain          text,
    status          text        not null default 'bootstrapping' check (status in ('bootstrapping', 'active', 'failed', 'cancelled')),
    reason          text,
    created_at      timestamptz not null default now(),
    changed_at      timestamptz not null default now()
);
create unique index organization_domain on app.organization (domain) where status in ('bootstrapping', 'active');
select app.isolate('app.organization');
comment on table app.organization is 'Organisations. If one failed or was cancelled, it was undone, and its row says why.';

create table app.invitation (
    invitation_id   uuid        primary key default gen_random_uuid(),
    tenant_id       uuid        not null,
    organization_id uuid        not null references app.organization,
    email           text        not null,
    status          text        not null default 'pending' check (status in ('pending', 'sent', 'revoked')),
    token           text        check (token is null or status = 'pending'),
    token_hash      bytea       not null unique,
    created_at      timestamptz not null default now(),
    changed_at      timestamptz not null default now(),
    unique (organization_id, email)
);
select app.isolate('app.invitation');
comment on column app.invitation.token is 'The secret that accepts the invitation. It is deleted when it is mailed; token_hash, its SHA-256, stays.';

create function app.organization_bootstrap_fault(data jsonb) returns text
language plpgsql immutable
as $$
declare
    uuid      constant text  := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
    addresses constant jsonb := coalesce(data -> 'invitations', '[]');
begin
    if coalesce(data ->> 'organization_id', '') !~ uuid then
        return 'organization_id must be a UUID in lower case: it becomes the workflow id';
    elsif jsonb_typeof(data -> 'name') <> 'string' or coalesce(data ->> 'name', '') !~ E'\\S' or data ->> 'name' ~ E'[\n\r]' or length(data ->> 'name') > 200 then
        return 'name must be one line of at most 200 characters';
    elsif jsonb_typeof(data -> 'subdomain') <> 'string' or coalesce(data ->> 'subdomain', '') !~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$' then
        return 'subdomain must be one DNS label in lower case';
    elsif jsonb_typeof(addresses) <> 'array' then
        return 'invitations must be an array of e-mail addresses';
    elsif jsonb_array_length(addresses) > 100 then
        return 'invitations must be at most 100';
    elsif exists (select from jsonb_array_elements(addresses) as a (address)
                  where jsonb_typeof(address) <> 'string' or address #>> '{}' !~ '^[!-?A-~]+@[!-?A-~]+$'
                        or address #>> '{}' ~ E'[<>,;:"()\\\\]' or length(address #>> '{}') > 254) then
        return 'invitations must be plain e-mail addresses, such as ada@example.org';
    elsif data ?| '{tenant_id,stream}' then
        return 'tenant_id and stream are columns of the event, leave them out of data';
    end if;
    return null;
end $$;

create function app.check_organization_bootstrap() returns trigger
language plpgsql
as $$
declare
    fault constant text := app.organization_bootstrap_fault(new.data);
begin
    if fault is not null then
        raise exception using errcode = 'invalid_parameter_value', message = format('%s: %s', new.type, fault);
    end if;
    return new;
end $$;
comment on function app.check_organization_bootstrap() is 'Refuses an event with which no bootstrap can begin, in the transaction that writes it.';

create trigger check_organization_bootstrap before insert on app.event
for each row when (new.type = 'organization.bootstrap.initiated') execute function app.check_organization_bootstrap();

create view app.event_chain with (security_barrier) as
select
    e.tenant_id,
    e.stream,
    e.seq,
    e.event_id,
    e.type as event,
    e.occurred_at,
    round(extract(epoch from e.occurred_at - first_value(e.occurred_at) over chain) * 1000, 1) as ms_since_first,
    round(extract(epoch from e.occurred_at - lag(e.occurred_at) over chain) * 1000, 1) as ms_since_previous,
    m.enqueued_at,
    m.claimed_at,
    m.settled_at,
    m.status,
    m.worker,
    coalesce(m.workflow_id, e.workflow_id) as workflow_id,
    coalesce(m.run_id, e.run_id) as run_id,
    m.last_error
from app.event e
left join lateral (
    select l.* from outbox.message_life l where l.message_id = e.event_id
    offset 0  -- looked up for each event, by the indexes of the three tables
) m on true
-- The messages are read with the rights of the view's owner, for which the tenants' policies may not apply.
where e.tenant_id = app.current_tenant()
window chain as (partition by e.tenant_id, e.stream order by e.seq);

comment on view app.event_chain is
    'The events of each stream of the tenant that was entered, in order, with their times and the outcome of their messages. Workflow and run are those that the message started, or else those that wrote the event.';
grant select on app.event_chain to app_tenant;
