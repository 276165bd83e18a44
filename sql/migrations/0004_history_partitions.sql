-- Daily partitions of the history, named history_YYYYMMDD, bounded in UTC.
--
-- One at a time: workers and a migrator may come at once. And not at any price: attaching and dropping need locks behind which
-- every settle would queue, so whoever finds a long reader in the way gives up soon and comes again at the next maintenance.
--
-- Only an owner may do either. Workers own nothing, so both run with the rights of the schema's owner.

-- The lock is on the register of migrations, which only an owner and this function may lock so. Any login may take an advisory lock.
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
    'Be the only one that changes the shape of this schema until the transaction ends. Without wait: false if another does.';

-- How long history is kept at least, whatever a worker's login asks for. Only the owner changes it: a worker's login may be stolen.
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
comment on function outbox.keep_history is 'Let workers drop history only after so many days. For the owner of the schema.';

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
comment on function outbox.droppable is 'This time, or an earlier one: history settled since then this login may not drop.';

create function outbox.create_history_partitions(days_ahead integer, now timestamptz default now()) returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'  -- bounds are written and read as text: else CST may be Shanghai's when written, and Chicago's when read
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
        -- A settle that had chosen the default partition before this one was attached would be refused by it: let those that run
        -- come to their end, and those that come wait. Readers go on, but attaching waits for those of the default partition.
        lock table only outbox.history in share row exclusive mode;
        execute format('create table outbox.%I (like outbox.history including all)', part);
        -- A day that began before its partition existed has rows in the default partition: they move along.
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
comment on function outbox.old_history_partitions is 'The daily partitions of history whose day was over by then, the oldest first.';

create function outbox.drop_history_partition(part text, before timestamptz) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
begin
    perform outbox.change_alone();
    if not exists (select from outbox.old_history_partitions(outbox.droppable(before)) o where o.part = drop_history_partition.part) then
        return false;  -- somebody was faster
    end if;
    execute format('drop table outbox.%I', part);
    return true;
end
$$;
comment on function outbox.drop_history_partition is 'Drop one of old_history_partitions, and return whether it was there.';

-- What no daily partition took, because its day had none.
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
