-- Messages after they were enqueued: their status, their history, and what people do with them.

create view outbox.message_life as
select
    m.message_id,
    case
        when m.leased_until > now() then 'processing'
        when m.due_at = 'infinity' then 'waiting'
        when m.due_at > now() then 'scheduled'
        else 'pending'
    end as status,
    m.topic,
    m.key,
    m.target ->> 'operation' as operation,
    m.target ->> 'workflow' as workflow,
    m.target ->> 'workflow_id' as workflow_id,
    null::text as run_id,
    w.name as worker,
    m.created_at as enqueued_at,
    m.available_at,
    m.claimed_at,
    null::timestamptz as settled_at,
    case when m.leased_until is null and m.due_at > now() and m.due_at < 'infinity' then m.due_at end as next_try_at,
    m.deliveries,
    m.attempts,
    null::text as outcome,
    m.errors -> -1 ->> 'detail' as last_error
from outbox.message m
left join outbox.worker w on w.worker_id = m.worker_id and m.leased_until is not null
union all
select
    h.message_id, case when h.outcome in ('cancelled', 'discarded') then h.outcome else 'completed' end, h.topic, h.key, h.operation, h.workflow, h.workflow_id, h.run_id, w.name,
    h.created_at, h.available_at, h.claimed_at, h.settled_at, null, h.deliveries, h.attempts, h.outcome, null
from outbox.history h
left join outbox.worker w on w.worker_id = h.worker_id
union all
select
    d.message_id, 'failed', d.topic, d.key, d.target ->> 'operation', d.target ->> 'workflow', d.target ->> 'workflow_id', null, w.name,
    d.created_at, d.available_at, d.claimed_at, d.died_at, null, d.deliveries, d.attempts, d.reason, d.errors -> -1 ->> 'detail'
from outbox.dead_letter d
left join outbox.worker w on w.worker_id = d.worker_id;

comment on view outbox.message_life is
    'Each message with its status (pending, scheduled, waiting, processing, completed, failed, cancelled, discarded), its worker, its workflow and run, and the time of each step.';

-- The view alone reads the whole history for a workflow id, a key, a topic, or the latest few. An index on one of them would cost at each
-- settlement. The index on message ids exists already, and ids of version 7 begin with their time.
create function outbox.recent(age interval default interval '10 minutes') returns setof outbox.message_life
language sql stable
begin atomic
    select l.*
    from outbox.message_life l
    where l.message_id >= encode(
        substring(int8send((extract(epoch from now() - age) * 1000)::bigint) from 3) || '\x00000000000000000000'::bytea, 'hex')::uuid;
end;
comment on function outbox.recent(age interval) is
    'message_life of messages enqueued within this age, by the time in their ids: it reads no older history. Your own ids must be UUIDs of version 7.';

-- cancel runs with the rights of the schema's owner, because producers have none on its tables. A message id is no secret: enqueue()
-- returns another login's id for its dedup_key. So a login may cancel its own messages, and needs a right for others.

create function outbox.may_cancel(enqueued_by text) returns boolean
language sql stable
begin atomic
    select enqueued_by = session_user or exists (
        select from pg_roles r
        join pg_class c on c.oid = 'outbox.message'::regclass
        join pg_namespace n on n.oid = c.relnamespace
        where (r.oid = c.relowner or r.rolname = any (array[enqueued_by, n.nspname || '_worker']))
          and pg_has_role(session_user, r.oid, 'member'));
end;
comment on function outbox.may_cancel is
    'Whether this login may cancel what another enqueued: as a member of that login''s role, of the role for workers, or of the owner.';

create function outbox.cancel(message_id uuid) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_variable
begin
    perform outbox.note_uptime();
    if exists (select from outbox.message m where m.message_id = message_id and not outbox.may_cancel(m.enqueued_by)) then
        raise exception using errcode = 'insufficient_privilege', message = format('outbox: message %s was enqueued by another login', message_id),
            hint = 'cancel it with that login, or with one that has the role for workers';
    end if;
    with cancelled as (
        delete from outbox.message m
        where m.message_id = message_id and (m.leased_until is null or m.leased_until <= clock_timestamp())
        returning m.*
    )
    insert into outbox.history as h
        (message_id, seq, created_at, available_at, claimed_at, settled_at, worker_id, deliveries, attempts, outcome, topic, key,
         dedup_key, operation, workflow, workflow_id)
    select c.message_id, c.seq, c.created_at, c.available_at, c.claimed_at, clock_timestamp(), c.worker_id, c.deliveries, c.attempts,
           'cancelled', c.topic, c.key, c.dedup_key, c.target ->> 'operation', c.target ->> 'workflow', c.target ->> 'workflow_id'
    from cancelled c;
    if found then
        perform outbox.commit_durably();  -- the caller relies on "cancelled"
        perform outbox.wake();  -- the next of its key may go now
        return true;
    end if;
    return (select false from outbox.message m where m.message_id = message_id);
end
$$;
comment on function outbox.cancel(message_id uuid) is
    'Cancel an unsettled message that this login enqueued, or with the relay''s rights any. True: it will not be delivered from now on; message_life and the audit show whether it was before. False: a worker holds it, and may be delivering it. Null: no unsettled message has this id.';

-- The dead letters that match, for all that lists or moves them. Null matches all.
create function outbox.dead_letters(
    topic       text        default null,
    kind        text        default null,
    reason      text        default null,
    key         text        default null,
    older_than  interval    default null,
    newer_than  interval    default null,
    message_ids uuid[]      default null
) returns setof outbox.dead_letter
language sql stable
begin atomic
    select d.*
    from outbox.dead_letter d
    where (dead_letters.topic is null or outbox.matches(dead_letters.topic, d.topic))
      and (dead_letters.kind is null or d.errors -> -1 ->> 'kind' = dead_letters.kind)
      and (dead_letters.reason is null or d.reason = dead_letters.reason)
      and (dead_letters.key is null or d.key = dead_letters.key)
      and (dead_letters.older_than is null or d.died_at < now() - dead_letters.older_than)
      and (dead_letters.newer_than is null or d.died_at >= now() - dead_letters.newer_than)
      and (dead_letters.message_ids is null or d.message_id = any (dead_letters.message_ids));
end;
comment on function outbox.dead_letters is
    'Dead letters by topic (exact, or prefix.*), kind of their last error, reason, key, age since their death, and message ids.';

-- Daily partitions of the history, named history_YYYYMMDD, bounded in UTC.
--
-- Several workers and a migrator may come at once, so one at a time changes them. Attaching and dropping need locks behind which each
-- settle would wait. So if a long reader is in the way, this gives up soon, and the next maintenance tries again.
--
-- Only an owner may do either. Workers own nothing, so both run with the rights of the schema's owner.

-- The lock is on the register of migrations, which only an owner and this function may lock. Any login may take an advisory lock.
create function outbox.change_alone(wait boolean default true) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if wait then
        lock table outbox.migration in share update exclusive mode;
    else
        lock table outbox.migration in share update exclusive mode nowait;
    end if;
    return true;
exception when lock_not_available then
    if wait then
        raise exception using errcode = 'lock_not_available', message = 'outbox: another migration or maintenance goes on',
            hint = 'wait for it, or end it';
    end if;
    return false;
end
$$;
comment on function outbox.change_alone is
    'Lock the shape of this schema until the transaction ends. Without wait: false if another transaction has the lock.';

-- How long history is kept at least. A worker's login may ask for less, but only the owner changes it: a worker's login may be stolen.
create table outbox.retention (
    one          boolean primary key default true check (one),
    history_days integer not null check (history_days >= 1)
);
insert into outbox.retention (history_days) values (30);
comment on table outbox.retention is 'The days of history that only the owner may drop. See outbox.keep_history().';

create function outbox.keep_history(days integer) returns void
language sql
as $$
    insert into outbox.retention (history_days) values (days)
    on conflict (one) do update set history_days = excluded.history_days
$$;
comment on function outbox.keep_history is 'Workers may drop history only after so many days. For the owner of the schema.';

create function outbox.may_own() returns boolean
language sql stable
as $$
    select pg_has_role(session_user, c.relowner, 'member') from pg_class c where c.oid = 'outbox.message'::regclass
$$;
comment on function outbox.may_own is 'Whether this login is the owner of the schema, or a member of it.';

create function outbox.droppable(before timestamptz) returns timestamptz
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select case when outbox.may_own() then before
                else least(before, clock_timestamp() - make_interval(days => coalesce((select r.history_days from outbox.retention r), 30))) end
$$;
comment on function outbox.droppable is 'This time, or an earlier one: this login may not drop history that was settled after it.';

create function outbox.create_history_partitions(days_ahead integer, now timestamptz default now()) returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'  -- bounds are written and read as text: otherwise CST may mean Shanghai when written, and Chicago when read
set datestyle = 'ISO, YMD'
set lock_timeout = '10s'
as $$
declare
    first date;
    day   date;
    part  text;
begin
    if days_ahead > 100 then
        perform outbox.refuse(format('days_ahead is %s, it must be at most 100', days_ahead));
    end if;
    first := (case when outbox.may_own() then now else clock_timestamp() end at time zone 'UTC')::date;
    perform outbox.change_alone();
    perform set_config('lock_timeout', '2s', true);  -- until the end of this function
    for day in select generate_series(first, first + days_ahead, interval '1 day')::date loop
        part := 'history_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass('outbox.' || part) is not null;
        -- A settle that chose the default partition before this one was attached would fail. So the settles that run come to their
        -- end, and later ones wait. Readers continue, but attaching waits for those of the default partition.
        lock table only outbox.history in share row exclusive mode;
        execute format('create table outbox.%I (like outbox.history including all)', part);
        -- If the day began before its partition existed, it has rows in the default partition: they move.
        execute format(
            'with moved as (delete from outbox.history_default where settled_at >= %1$L and settled_at < %2$L returning *)
             insert into outbox.%3$I select * from moved',
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC', part);
        execute format('alter table outbox.history attach partition outbox.%I for values from (%L) to (%L)',
                       part, day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
        return next part;
    end loop;
end
$$;
comment on function outbox.create_history_partitions is
    'Create the missing daily partitions of history from today to days_ahead days from now, and return their names.';

create function outbox.old_history_partitions(before timestamptz)
returns table (part text, begins timestamptz, ends timestamptz)
language sql stable
begin atomic
    select d.part, d.day at time zone 'UTC', (d.day + interval '1 day') at time zone 'UTC'
    from (
        select c.relname::text as part, to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp as day
        from pg_inherits i
        join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox.history'::regclass and c.relname ~ '^history_[0-9]{8}$'
    ) d
    where d.day + interval '1 day' <= before at time zone 'UTC'
    order by d.part;
end;
comment on function outbox.old_history_partitions is 'The daily partitions of history that had ended by then, the oldest first.';

create function outbox.drop_history_partition(part text, before timestamptz) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
begin
    perform outbox.change_alone();
    if not exists (select from outbox.old_history_partitions(outbox.droppable(before)) o where o.part = drop_history_partition.part) then
        return false;  -- another transaction was faster
    end if;
    execute format('drop table outbox.%I', part);
    return true;
end
$$;
comment on function outbox.drop_history_partition is 'Drop one of old_history_partitions, and return whether it was there.';

-- Rows that no daily partition took, because their day had none.
create function outbox.delete_stray_history(before timestamptz, at_most bigint default null) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    with deleted as (
        delete from outbox.history_default h
        where h.ctid = any (array(
            select o.ctid from outbox.history_default o where o.settled_at < (select outbox.droppable(before)) limit at_most for update skip locked))
        returning h.seq
    )
    select count(*) from deleted
$$;
comment on function outbox.delete_stray_history is
    'Delete history settled before then that no daily partition took, at most so many, and return how many.';

create function outbox.drop_history_partitions(keep_days integer, now timestamptz default now()) returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    before timestamptz := ((now at time zone 'UTC')::date - keep_days)::timestamp at time zone 'UTC';
    part   text;
begin
    if keep_days < 1 then
        perform outbox.refuse(format('keep_days is %s, it must be at least 1', keep_days));
    end if;
    for part in select o.part from outbox.old_history_partitions(outbox.droppable(before)) o loop
        if outbox.drop_history_partition(part, before) then
            return next part;
        end if;
    end loop;
    perform outbox.delete_stray_history(now - make_interval(days => keep_days));
end
$$;
comment on function outbox.drop_history_partitions is
    'Drop the daily partitions that ended more than keep_days days ago, and return their names.';

revoke execute on function outbox.drop_history_partition, outbox.drop_history_partitions, outbox.delete_stray_history from public;
