-- The tables of messages, workers and switches.
--
-- A new message is in `message`, the hot table, which holds only unsettled messages. Settling moves the row: to `history` when the sink
-- has taken it, to `dead_letter` when it never will be. So the hot table and its indexes stay as small as the backlog.
--
-- Each name has the schema `outbox.` before it. The migration runner replaces that qualifier when another schema is configured.

create function outbox.lane(tenant text, key text) returns text
language sql immutable parallel safe
begin atomic
    select coalesce('t' || tenant, 'k' || key, '-');
end;
comment on function outbox.lane is 'Restricted messages are claimed by lanes, which take turns: a lane for each tenant, and without a tenant for each key.';

create table outbox.message (
    message_id   uuid        primary key,
    seq          bigint      generated always as identity,
    due_at       timestamptz not null,
    available_at timestamptz not null,
    created_at   timestamptz not null,
    claimed_at   timestamptz,
    leased_until timestamptz,
    lease_token  bigint,
    worker_id    bigint,
    deliveries   integer     not null default 0,
    attempts     integer     not null default 0,
    bytes        integer     not null default 0,
    priority     smallint    not null default 0,
    topic        text        not null,
    tenant       text,
    key          text,
    restricted   boolean     not null default false,
    ready        boolean     not null default true,
    in_flight    boolean     not null default false,
    parked       bigint,
    dedup_key    text,
    dedup_window interval,
    expires_at   timestamptz,
    on_expiry    text        check (on_expiry in ('bury', 'discard')),
    target       json,
    headers      json        not null default '{}',
    payload      json,
    errors       jsonb       not null default '[]',
    enqueued_by  text        not null default session_user,
    constraint restricted check (restricted or (key is null and tenant is null))
)
-- Rows live for milliseconds. Half of each page is kept free, so that a lease is written to the page of its message and to no index (HOT).
-- Vacuum runs after 2000 dead rows plus a hundredth of the table, without pauses. Each run reads every index completely. That costs
-- nothing in a small table, and must not happen every few seconds while a million wait. The same holds for the data of large payloads.
with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0
);

comment on table outbox.message is 'Unsettled messages: waiting, scheduled, or leased to a worker.';
comment on column outbox.message.message_id is 'Its identity for ever; also the request id for Temporal.';
comment on column outbox.message.seq is 'The order in which the database numbered the messages. Gaps are normal, and it is not the order of commits. If it repeats, message_id decides.';
comment on column outbox.message.due_at is
    'When a worker may claim the row, and the order of claiming. For a restricted message that a worker holds: the end of the lease.';
comment on column outbox.message.available_at is 'The earliest time of delivery, as the producer wants it.';
comment on column outbox.message.leased_until is 'The end of the lease, null while no worker holds the row. An abandoned row is free after that.';
comment on column outbox.message.lease_token is
    'Fencing token of the claim that holds the row, null if none does: a settle with another token finds no row. Random, so that no crash or failover repeats it.';
comment on column outbox.message.deliveries is 'Claims since the last known outcome: it grows when workers die with the message.';
comment on column outbox.message.attempts is 'How often the message itself failed. Outages, throttling and lost leases do not count.';
comment on column outbox.message.bytes is 'Payload, headers and target as text, in bytes, so that a claim can bound its size without reading them.';
comment on column outbox.message.errors is 'The errors so far: the first and the latest nineteen.';

comment on column outbox.message.enqueued_by is 'The login that enqueued it, and may cancel it.';

comment on column outbox.message.key is 'Messages with the same key are delivered one at a time, in the order of seq.';
comment on column outbox.message.tenant is 'The tenant that it belongs to. Tenants take turns.';
comment on column outbox.message.restricted is 'Whether it has a key or a tenant, or its topic was limited or paused: then claim/restricted.sql claims it.';
comment on column outbox.message.ready is 'For a restricted message: whether it is in its lane. Otherwise it waits for due_at, for its turn, or for its worker.';
comment on column outbox.message.in_flight is 'For a restricted message: whether a worker holds it. Only one message of a key.';
comment on column outbox.message.parked is 'The rule that parks it: a pause, or the limit that has given it the time in due_at.';

-- The claim and the index have the same order, and scheduled messages come after `now`. Restricted messages are in other indexes. No
-- index has the columns in which the plain claim writes a lease.
create index message_due on outbox.message (due_at, seq) where not restricted;
create index message_lane on outbox.message (outbox.lane(tenant, key), due_at, seq) where restricted and ready;
create index message_waiting on outbox.message (due_at) where restricted and not ready and due_at < 'infinity';
create index message_asleep on outbox.message (key, seq, message_id) where due_at = 'infinity' and parked is null;
create index message_parked on outbox.message (parked) where parked is not null;
create index message_key on outbox.message (key, seq, message_id) where key is not null;

-- The guarantee of order: only one message of a key is in flight. Messages without a key do not conflict, because in this index no null
-- equals another. It is also where claim/outlook.sql finds the restricted messages that workers hold.
create unique index message_in_flight on outbox.message (key) where in_flight;
create unique index message_dedup on outbox.message (dedup_key) where dedup_key is not null;

create table outbox.history (
    message_id   uuid        not null,
    seq          bigint      not null,
    created_at   timestamptz not null,
    available_at timestamptz not null,
    claimed_at   timestamptz,
    settled_at   timestamptz not null,
    worker_id    bigint,
    deliveries   integer     not null,
    attempts     integer     not null,
    outcome      text        not null check (outcome in ('delivered', 'duplicate', 'discarded', 'cancelled')),
    topic        text        not null,
    key          text,
    dedup_key    text,
    operation    text,
    workflow     text,
    workflow_id  text,
    run_id       text,
    namespace    text,
    task_queue   text
)
partition by range (settled_at);
create index history_message on outbox.history (message_id);

comment on table outbox.history is 'Settled messages without their payload (Temporal has it), in daily partitions by settled_at, in UTC.';
comment on column outbox.history.namespace is 'Of a delivery: the namespace in the target; null for the worker''s own, or its route''s.';
comment on column outbox.history.task_queue is 'Of a delivery: the task queue in the target; null for the worker''s own, or its route''s.';
comment on column outbox.history.outcome is 'duplicate: another message had started that workflow id before. discarded: it expired, with on_expiry discard; or a dead letter that was discarded or pruned. cancelled: by outbox.cancel.';

-- For rows that no daily partition takes, so that a settle never fails because a partition is missing.
create table outbox.history_default partition of outbox.history default;
-- It has no key, and with a publication for all tables a delete from it would fail.
alter table outbox.history_default replica identity full;

create table outbox.dead_letter (
    message_id   uuid        primary key,
    seq          bigint      not null,
    created_at   timestamptz not null,
    available_at timestamptz not null,
    claimed_at   timestamptz not null,
    died_at      timestamptz not null,
    worker_id    bigint,
    deliveries   integer     not null,
    attempts     integer     not null,
    priority     smallint    not null,
    reason       text        not null check (reason in ('rejected', 'exhausted', 'quarantined', 'expired')),
    topic        text        not null,
    tenant       text,
    key          text,
    dedup_key    text,
    dedup_window interval,
    expires_at   timestamptz,
    on_expiry    text,
    target       json,
    headers      json        not null,
    payload      json,
    errors       jsonb       not null,
    enqueued_by  text        not null default session_user
);
create index dead_letter_died on outbox.dead_letter (died_at);

comment on table outbox.dead_letter is 'Whole messages that are not delivered unless a person puts them back, with their errors.';
comment on column outbox.dead_letter.reason is
    'rejected: it cannot succeed as it is. exhausted: it failed max_attempts times. quarantined: workers died with it max_deliveries times. expired: it was claimed after expires_at.';

create table outbox.delivered_key (
    dedup_key  text        primary key,
    message_id uuid        not null,
    until      timestamptz not null
);
create index delivered_key_until on outbox.delivered_key (until);
comment on table outbox.delivered_key is 'Dedup keys of delivered messages. Until the end of its window, a message with the same dedup key is not added.';

create table outbox.worker (
    worker_id  bigint      generated always as identity primary key,
    name       text        not null,
    version    text        not null,
    started_at timestamptz not null default now(),
    seen_at    timestamptz not null default now(),
    stopped_at timestamptz,
    state      text        not null default 'starting' check (state in ('starting', 'running', 'holding', 'draining', 'stopped', 'dead')),
    presence   bigint,
    present_at timestamptz,
    detail     jsonb       not null default '{}'
);
create index worker_presence on outbox.worker (worker_id) where presence is not null;
comment on table outbox.worker is 'Worker processes. seen_at is their heartbeat; only an orderly shutdown sets stopped_at.';
comment on column outbox.worker.state is 'What the worker last reported; or dead: another worker saw it end, and there was no heartbeat since.';
comment on column outbox.worker.presence is
    'The advisory lock that a session of the worker holds while the process lives. Null if it has none, behind a pooler for example: then only a missing heartbeat shows that it ended.';
comment on column outbox.worker.present_at is 'When the session took that lock.';

create table outbox.control (
    name       text        primary key check (name ~ '^[a-z][a-z0-9_.]*$'),
    value      jsonb       not null,
    changed_at timestamptz not null default now(),
    changed_by text        not null default session_user
);
comment on table outbox.control is 'Switches for all running workers. Workers read it with each heartbeat.';

-- PostgreSQL itself empties an unlogged table when it recovers from a crash, and when a standby is promoted. An orderly restart keeps it.
-- So this row is gone after each event that may have undone the last writes of a worker.
create unlogged table outbox.uptime (
    only_row boolean     primary key default true check (only_row),
    since    timestamptz not null default now()
);
insert into outbox.uptime default values;
comment on table outbox.uptime is 'Since when no claim was lost in a crash or a failover. No row: perhaps a moment ago. Workers restore the row.';
