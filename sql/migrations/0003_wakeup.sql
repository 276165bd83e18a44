-- What happens with every enqueue: it rings the doorbell, and it is made durable.
--
-- The notification carries nothing and is only a hint; its channel is `<schema>_wakeup`. One session that listens and stays in a
-- transaction lets the server's queue of notifications fill up, and then each commit that notifies fails. So nothing here notifies while
-- the queue is half full: polls find the messages meanwhile. The four functions that notify each say so for themselves. One function for
-- all would cost a third of a microsecond a statement, and each role would need the right to call it.

create function outbox.ring() returns trigger
language plpgsql
as $$
begin
    -- A condition, because PERFORM costs much more.
    if pg_notification_queue_usage() < 0.5 and pg_notify(tg_table_schema || '_wakeup', '') is null then
        return null;
    end if;
    return null;
end
$$;
comment on function outbox.ring() is 'Trigger: wakes the workers that listen, once the transaction commits.';

create function outbox.wake() returns void
language sql
begin atomic
    select pg_notify(n.nspname || '_wakeup', '')
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace  -- not its name as regnamespace, which quote_all_identifiers would quote
    where c.oid = 'outbox.message'::regclass and pg_notification_queue_usage() < 0.5;
end;
comment on function outbox.wake() is 'Wakes the workers that listen, once the transaction commits.';

-- Durable before delivered: what was announced outside of this database must survive a crash of the server. A commit with
-- synchronous_commit off is visible before it is on disk, so a worker could start a workflow whose message is then lost. These triggers
-- raise the setting to "on" for the transaction, where the session, role, database or server has less. "on" also waits for synchronous
-- standbys, if there are any, which "local" and "remote_write" do not fully do. Nothing is ever lowered.
--
-- The condition stands in the function: as the trigger's own it would be planned for each statement, which costs more than the call.

create function outbox.commit_durably() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end
$$;
comment on function outbox.commit_durably() is 'Raises synchronous_commit to at least "on" until the end of the transaction.';

-- It also has no search_path of its own, which costs more than what it does.
create function outbox.durable() returns trigger
language plpgsql
as $$
begin
    if pg_catalog.current_setting('synchronous_commit') operator(pg_catalog.<>) all ('{on,remote_apply}') then
        perform pg_catalog.set_config('synchronous_commit', 'on', true);
    end if;
    return null;
end
$$;
comment on function outbox.durable() is 'Trigger: the transaction commits durably, whatever synchronous_commit says.';

create trigger durable before insert on outbox.message
for each statement execute function outbox.durable();
alter table outbox.message enable always trigger durable;  -- also under session_replication_role = replica

-- What people switch for all workers must hold after a crash too.
create trigger durable before insert or update or delete on outbox.control
for each statement execute function outbox.durable();

create trigger wakeup after insert on outbox.message
for each statement execute function outbox.ring();

-- The worker's own commits do not wait for the disk (ADR 11): after a crash a message may look as if it had never been claimed. Nobody
-- may then say that it was not delivered.

create function outbox.note_uptime() returns void
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into outbox.uptime (since) select now() where not exists (select from outbox.uptime) on conflict do nothing
$$;
comment on function outbox.note_uptime() is 'Restores the row of outbox.uptime after a crash or a failover.';

create function outbox.claim_may_be_lost(due_first timestamptz) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    return due_first < coalesce((select u.since from outbox.uptime u), now());
end
$$;
comment on function outbox.claim_may_be_lost(due_first timestamptz) is
    'Whether a message that was due then, and looks unclaimed, may have been claimed and delivered before a crash or a failover.';

create function outbox.expiry(m outbox.message) returns text
language plpgsql stable
as $$
begin
    if m.deliveries > 1 or m.errors @? '$[*] ? (@.counted == false)' or outbox.claim_may_be_lost(greatest(m.created_at, m.available_at)) then
        return 'doubt';
    end if;
    return m.on_expiry;
end
$$;
comment on function outbox.expiry(m outbox.message) is
    'What becomes of a message that a worker claims after its expires_at: bury or discard, as asked; doubt, if it may have been delivered before.';
