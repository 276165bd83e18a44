-- What `outbox import` has moved here from another database. A row is recorded in the transaction that enqueues its message, so a run that
-- was killed continues where it ended.

create table outbox.import (
    import_id    bigint      generated always as identity primary key,
    name         text        not null unique check (name <> ''),
    identity     text        not null,
    rolling_back boolean     not null default false,
    rollbacks    integer     not null default 0,
    begun_at     timestamptz not null default now()
);
comment on table outbox.import is 'Imports, by the names that their mappings give them.';
comment on column outbox.import.identity is 'The column of the source that identifies a row. It must not change between runs.';
comment on column outbox.import.rolling_back is 'Whether a rollback runs, or was interrupted: meanwhile no row is moved.';
comment on column outbox.import.rollbacks is 'How many rollbacks have begun. A run that finds another number than at its start ends.';

create table outbox.imported (
    import_id   bigint      not null references outbox.import on delete cascade,
    identity    text        collate "C" not null,
    message_id  uuid        not null,
    namespace   text        not null default '',
    workflow_id text        not null,
    workflow    text        not null,
    moved_at    timestamptz not null default now(),
    primary key (import_id, identity)
);
comment on table outbox.imported is 'Rows that were moved, each with its message. A row in this table is not moved again.';
comment on column outbox.imported.namespace is 'The namespace in the mapping; empty for the worker''s own.';

-- One workflow id belongs to one row, also of imports under different names.
create unique index imported_workflow on outbox.imported (workflow_id, namespace);

create function outbox.fault_of_message(message json) returns text
language plpgsql
as $$
declare
    fault text;
    cure  text;
begin
    perform outbox.check_names('', message);
    perform outbox.check_values('', message);
    perform outbox.check_message(
        '', message ->> 'topic', message -> 'payload', message ->> 'key', coalesce(nullif((message -> 'headers')::text, 'null')::json, '{}'),
        nullif((message -> 'target')::text, 'null')::json, message ->> 'dedup_key', coalesce((message ->> 'priority')::integer, 0),
        message ->> 'tenant', coalesce((message ->> 'dedup_window')::interval, '1 hour'), coalesce(message ->> 'on_expiry', 'bury'),
        (message ->> 'available_at')::timestamptz, (message ->> 'expires_at')::timestamptz);
    return null;
exception when data_exception or program_limit_exceeded then
    get stacked diagnostics fault = message_text, cure = pg_exception_hint;
    return concat_ws('; ', regexp_replace(fault, '^outbox: ', ''), nullif(cure, ''));
end
$$;
comment on function outbox.fault_of_message is 'Why enqueue_many would refuse a message; null if it would not. Changes nothing.';
