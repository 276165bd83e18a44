-- Where this outbox lives, so that a copy of the database delivers nothing by itself.
--
-- A database that was restored, refreshed or cloned from a dump holds the same messages as the original, and a worker beside it would
-- deliver them a second time. So the first worker writes down which server and database it found. Where that differs later, everything is
-- paused until a person says `outbox adopt`. A standby and its promotion keep both; so does a copy of the server's files (docs/recovery.md).

create table outbox.home (
    only_row          boolean     primary key default true check (only_row),
    system_identifier bigint,
    database          oid         not null,
    name              text        not null,
    since             timestamptz not null default now(),
    said_by           text        not null default session_user
);
comment on table outbox.home is 'The server and database in which this outbox lives. No row: the first worker will write it.';
comment on column outbox.home.system_identifier is 'What pg_control_system() calls the server; null where that may not be asked.';

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
comment on function outbox.home_fault() is 'Why this database is a copy of the one in which the outbox lived; null if it is not.';

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
    'What a worker asks before it claims: pauses everything and says why, if this database is a copy. The first worker writes down where it is.';

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
        -- The original may have delivered what looks unclaimed here.
        insert into outbox.uptime as u (since) values (now()) on conflict on constraint uptime_pkey do update set since = excluded.since;
        perform outbox.resume() from outbox.pause p where p.topic is null and p.key is null and p.paused_by like 'outbox: %';
    end if;
    return was_copy;
end
$$;
comment on function outbox.adopt() is 'This database is the outbox from now on: workers may claim. Returns whether it was a copy until now.';
