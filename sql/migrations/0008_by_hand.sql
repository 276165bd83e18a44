-- What people do by hand: taking a message back before it is delivered, and finding dead letters.

-- With the rights of the schema's owner, because producers have none on its tables. A message id is no secret: enqueue() returns another
-- login's id for its dedup_key. So a login may cancel what it enqueued, and others need a right to do so.

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
        perform outbox.commit_durably();  -- who hears "cancelled" relies on it
        perform outbox.wake();  -- another of its key may come now
        return true;
    end if;
    return (select false from outbox.message m where m.message_id = message_id);
end
$$;
comment on function outbox.cancel(message_id uuid) is
    'Take an unsettled message back, which this login has enqueued, or may as one of the relay''s. True: it will not be delivered from now on; whether it was before, message_life and the audit say. False: a worker holds it, and it may be on its way. Null: no unsettled message has this id.';

-- Where a dead letter stands, for everything that lists or moves them. Every argument narrows; null does not.
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
