-- What the outbox records for the time after a crash, a failover, a restore or a copy (docs/recovery.md).

-- The worker's own commits do not wait for the disk (ADR 11). So after a crash a message may look as if it had never been claimed, and may
-- have been delivered.

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
    'What to do with a message that is claimed after its expires_at: bury or discard, as the producer chose; doubt, if it may have been delivered before.';

-- The place of this outbox, so that a copy of the database delivers nothing by itself.
--
-- A database that was restored, refreshed or cloned from a dump holds the same messages as the original. A worker beside it would deliver
-- them a second time. So the first worker records which server and database it found. If that differs later, everything is paused until
-- a person runs `outbox adopt`. A standby and its promotion keep both; so does a copy of the server's files.

create table outbox.home (
    only_row          boolean     primary key default true check (only_row),
    system_identifier bigint,
    database          oid         not null,
    name              text        not null,
    since             timestamptz not null default now(),
    said_by           text        not null default session_user
);
comment on table outbox.home is 'The server and database of this outbox. No row: the first worker will write it.';
comment on column outbox.home.system_identifier is 'The server''s number in pg_control_system(); null if the login may not call that.';

create function outbox.place(out system_identifier bigint, out database oid, out name text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    select d.oid, d.datname into database, name from pg_database d where d.datname = current_database();
    select c.system_identifier into system_identifier from pg_control_system() c;
exception when insufficient_privilege or undefined_function or feature_not_supported then
    system_identifier := null;
end
$$;
comment on function outbox.place is 'The server and database in which this outbox is now.';

create function outbox.home_fault() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select format('this database (%s on server %s) is a copy of %s on server %s', p.name, coalesce(p.system_identifier::text, 'unknown'),
                  h.name, coalesce(h.system_identifier::text, 'unknown'))
    from outbox.home h, outbox.place() p
    where h.database <> p.database or h.system_identifier <> p.system_identifier
$$;
comment on function outbox.home_fault() is 'Why this database is a copy of the outbox''s; null if it is not.';

create function outbox.look_home() returns text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    fault text := outbox.home_fault();
begin
    if fault is null then
        if not exists (select from outbox.home) then
            insert into outbox.home (system_identifier, database, name)
            select p.system_identifier, p.database, p.name from outbox.place() p
            on conflict do nothing;
        end if;
    elsif not exists (select from outbox.pause p where p.topic is null and p.key is null) then
        perform outbox.pause();
        update outbox.pause p set paused_by = 'outbox: a copy of another database, see outbox adopt' where p.topic is null and p.key is null;
    end if;
    return fault;
end
$$;
comment on function outbox.look_home() is
    'Each worker calls it before it claims: if this database is a copy, it pauses everything and says why. The first worker records where it is.';

create function outbox.adopt() returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    was_copy boolean := outbox.home_fault() is not null;
begin
    perform outbox.commit_durably();
    insert into outbox.home as h (system_identifier, database, name)
    select p.system_identifier, p.database, p.name from outbox.place() p
    on conflict on constraint home_pkey do update
        set system_identifier = excluded.system_identifier, database = excluded.database, name = excluded.name, since = now(),
            said_by = session_user;
    if was_copy then
        -- The original may have delivered messages that look unclaimed here.
        insert into outbox.uptime as u (since) values (now()) on conflict on constraint uptime_pkey do update set since = excluded.since;
        perform outbox.resume() from outbox.pause p where p.topic is null and p.key is null and p.paused_by like 'outbox: %';
    end if;
    return was_copy;
end
$$;
comment on function outbox.adopt() is 'This database is the outbox from now on: workers may claim. Returns whether it was a copy until now.';

-- Sequences that were left behind. A cut-over by logical replication, a partial restore or setval() may leave a sequence below numbers
-- that are in use. Nothing stops then, because what must be unique is drawn again. But new messages get lower numbers than older ones of
-- their key, and would overtake them.

create function outbox.sequences(pages integer default null) returns table (name text, at bigint, highest bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.name, coalesce(pg_sequence_last_value(s.name::regclass), 0), coalesce(s.highest, 0)
    from (values
        (pg_get_serial_sequence('outbox.message', 'seq'), greatest(
            (select max(m.seq) from outbox.message m where pages is null or m.ctid < format('(%s,0)', pages)::tid),
            (select max(d.seq) from outbox.dead_letter d where pages is null or d.ctid < format('(%s,0)', pages)::tid))),
        (pg_get_serial_sequence('outbox.worker', 'worker_id'), (select max(w.worker_id) from outbox.worker w)),
        (pg_get_serial_sequence('outbox.import', 'import_id'), (select max(i.import_id) from outbox.import i)),
        ('outbox.rule_id', greatest((select max(p.rule_id) from outbox.pause p), (select max(l.rule_id) from outbox.topic_limit l),
                                    (select max(e.rule_id) from outbox.ended_rule e)))
    ) as s (name, highest)
$$;
comment on function outbox.sequences is
    'Each sequence of this schema, its latest number, and the highest number in use. Of the large tables only so many pages are read.';

create function outbox.advance_sequences() returns setof text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    behind record;
begin
    for behind in select s.name, s.highest from outbox.sequences() s where s.at < s.highest loop
        -- Numbers that others draw meanwhile are far below these.
        perform setval(behind.name::regclass, behind.highest + 1000);
        return next behind.name;
    end loop;
end
$$;
comment on function outbox.advance_sequences() is
    'Put each sequence that was left behind above the highest number in use, and return their names. Every outbox migrate does it.';
