-- What each enqueue and each switch also does: it notifies the workers, and its transaction commits durably.
--
-- A notification is empty and only a hint; its channel is `<schema>_wakeup`. If a session listens and stays in a transaction, the
-- server's queue of notifications fills up, and then each commit that notifies fails. So no function here notifies while the queue is
-- half full; polls find the messages meanwhile. Each of the four functions that notify has this condition itself. One function for all
-- would cost a third of a microsecond a statement, and each role would need the right to call it.

create function outbox.ring() returns trigger
language plpgsql
as $$
begin
    -- In a condition, because PERFORM costs much more.
    if pg_notification_queue_usage() < 0.5 and pg_notify(tg_table_schema || '_wakeup', '') is null then
        return null;
    end if;
    return null;
end
$$;
comment on function outbox.ring() is 'Trigger: wakes the workers that listen, once the transaction commits.';

create trigger wakeup after insert on outbox.message
for each statement execute function outbox.ring();

create function outbox.wake() returns void
language sql
begin atomic
    select pg_notify(n.nspname || '_wakeup', '')
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace  -- not its name as regnamespace, which quote_all_identifiers would quote
    where c.oid = 'outbox.message'::regclass and pg_notification_queue_usage() < 0.5;
end;
comment on function outbox.wake() is 'Wakes the workers that listen, once the transaction commits.';

create function outbox.probe() returns void
language sql
begin atomic
    select pg_notify(n.nspname || '_wakeup', 'probe')
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.oid = 'outbox.message'::regclass and pg_notification_queue_usage() < 0.5;
end;
comment on function outbox.probe() is 'Sends a notification that wakes no worker, and proves to listeners that notifications arrive.';

create function outbox.tell_switch() returns trigger
language plpgsql
as $$
begin
    if pg_notification_queue_usage() < 0.5 then
        perform pg_notify(tg_table_schema || '_wakeup', 'control');
    end if;
    return null;
end
$$;
comment on function outbox.tell_switch() is 'Trigger: the workers that listen read the control table, once the transaction commits.';

create trigger switch after insert or update or delete on outbox.control
for each statement execute function outbox.tell_switch();

create function outbox.set_switch(name text, value jsonb) returns void
language plpgsql
as $$
begin
    if set_switch.value is null then
        delete from outbox.control c where c.name = set_switch.name;
    else
        insert into outbox.control as c (name, value) values (set_switch.name, set_switch.value)
        on conflict on constraint control_pkey do update
            set value = excluded.value, changed_at = now(), changed_by = session_user;
    end if;
end
$$;
comment on function outbox.set_switch(name text, value jsonb) is 'Set a switch for every worker; null removes it. The names are in the documentation of operations.';

-- Supabase's "broadcast from database": one empty message on a private channel for each inserting statement. It runs with the
-- rights of this schema's owner, because producers need none in Realtime's. An error there never fails a producer.
create function outbox.broadcast() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    perform realtime.send('{}'::jsonb, 'wake', tg_table_schema, true);
    return null;
exception when others then
    raise warning 'outbox: no wake-up was broadcast: %', sqlerrm;
    return null;
end
$$;
revoke execute on function outbox.broadcast() from public;
comment on function outbox.broadcast() is 'Trigger: wakes the workers that listen to Supabase Realtime''s broadcasts. Made for enable_broadcast().';

-- Why a broadcast is not written, or null. realtime.send raises no error when it fails, so one is tried with this owner's rights and
-- rolled back. PostgreSQL's own count of inserted rows is read, because row-level security may hide a row that was written.
create function outbox.broadcast_fault() returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    schema text := (select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = 'outbox.message'::regclass);
    parts  oid[];
    before numeric;
    fault  text;
begin
    if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null or to_regclass('realtime.messages') is null then
        return 'this database has no realtime.send that writes to realtime.messages';
    elsif not current_setting('track_counts')::boolean then
        return 'track_counts is off, so nothing shows whether it wrote';
    end if;
    parts := array(select 'realtime.messages'::regclass union select relid from pg_partition_tree('realtime.messages'));
    before := (select sum(pg_stat_get_xact_tuples_inserted(part)) from unnest(parts) part);
    begin
        perform realtime.send('{}'::jsonb, 'wake', schema, true);
        if before = (select sum(pg_stat_get_xact_tuples_inserted(part)) from unnest(parts) part) then
            fault := 'it wrote no row';
            insert into realtime.messages (payload, event, topic, private, extension) values ('{}', 'wake', schema, true, 'broadcast');
        end if;
        raise exception using errcode = 'OB000';  -- only to roll back what was tried
    exception
        when sqlstate 'OB000' then return fault;
        when others then return sqlerrm;
    end;
end
$$;
comment on function outbox.broadcast_fault() is 'Why a broadcast through Supabase Realtime is not written, or null. Tries one and rolls it back.';

create function outbox.enable_broadcast(enabled boolean default true) returns void
language plpgsql
as $$
begin
    drop trigger if exists broadcast on outbox.message;
    if not enabled then
        return;
    end if;
    if to_regprocedure('realtime.send(jsonb, text, text, boolean)') is null then
        perform outbox.refuse('this database has no function realtime.send(jsonb, text, text, boolean)',
                              'broadcast from database needs Supabase Realtime; use postgres_changes, LISTEN or polling');
    end if;
    create trigger broadcast after insert on outbox.message
    for each statement execute function outbox.broadcast();
end
$$;
comment on function outbox.enable_broadcast(enabled boolean) is 'Let each enqueue broadcast a wake-up through Supabase Realtime, or stop that.';

-- Durable before delivered: a message that was delivered must survive a crash of the server. A commit with synchronous_commit off is
-- visible before it is on disk, so a worker could start a workflow, and the message be lost after that. These triggers raise the setting
-- to "on" for the transaction, if the session, role, database or server has less. "on" also waits for synchronous standbys, if there are
-- any; "local" and "remote_write" do not, or not fully. The setting is never lowered.
--
-- The condition is in the function: as the trigger's own it would be planned for each statement, which costs more than the call.

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

-- It also has no search_path of its own, which would cost more than its work.
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
comment on function outbox.durable() is 'Trigger: the transaction commits durably, also if synchronous_commit is off.';

create trigger durable before insert on outbox.message
for each statement execute function outbox.durable();
alter table outbox.message enable always trigger durable;  -- also under session_replication_role = replica

-- A switch for all workers must survive a crash too.
create trigger durable before insert or update or delete on outbox.control
for each statement execute function outbox.durable();
