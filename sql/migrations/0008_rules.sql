-- Rules: pauses and limits. A message with a rule, a key or a tenant is restricted: it has a claim of its own
-- (sql/queries/claim/restricted.sql).

create sequence outbox.rule_id;

create table outbox.pause (
    rule_id   bigint      primary key,
    topic     text        unique,
    key       text        unique,
    paused_at timestamptz not null default now(),
    paused_by text        not null default session_user,
    check (num_nonnulls(topic, key) <= 1)
);
create unique index pause_everything on outbox.pause ((true)) where topic is null and key is null;
comment on table outbox.pause is 'What is paused: a topic (exact, or prefix.*), a key, or with neither everything.';

create trigger switch after insert or delete on outbox.pause
for each statement execute function outbox.tell_switch();
create trigger durable before insert or delete on outbox.pause
for each statement execute function outbox.durable();

create table outbox.topic_limit (
    topic       text             primary key,
    rule_id     bigint           not null,
    rate        double precision not null check (rate > 0),
    burst       integer          not null check (burst >= 1),
    used_until  timestamptz      not null default '-infinity',
    given_until timestamptz      not null default '-infinity'
)
with (fillfactor = 50);
comment on table outbox.topic_limit is 'Topics (exact, or prefix.*) of which at most `rate` messages a second are claimed, and `burst` at once.';
comment on column outbox.topic_limit.rule_id is 'New when the limit changes, so that messages parked under the old one get new times.';
comment on column outbox.topic_limit.used_until is 'When the rate allows for all claims so far: the theoretical arrival time of the generic cell rate algorithm.';
comment on column outbox.topic_limit.given_until is 'The latest time that was given to a message that must wait.';

create table outbox.ended_rule (
    rule_id  bigint      primary key,
    ended_at timestamptz not null default now(),
    seen_at  timestamptz
);
comment on table outbox.ended_rule is 'Pauses and limits that have ended, until claims have called the messages that are parked under them.';
comment on column outbox.ended_rule.seen_at is 'When a claim first saw it: claims that begin later park no message under it.';

create function outbox.matches(pattern text, topic text) returns boolean
language sql immutable parallel safe
begin atomic
    select case when right(pattern, 1) = '*' then starts_with(topic, left(pattern, -1)) else topic = pattern end;
end;
comment on function outbox.matches is 'Whether a pattern matches a topic: the topic itself, prefix.*, or *.';

create function outbox.check_pattern(pattern text) returns void
language plpgsql
as $$
begin
    if pattern is null or pattern = '' or pattern ~ '[*].' or pattern ~ '[^.][*]$' then
        perform outbox.refuse(format('topic is %s', coalesce(quote_literal(pattern), 'null')), 'use an exact topic, or prefix.*');
    end if;
end
$$;

-- A number that no rule and no parked message has: a restore may have left the sequence behind.
create function outbox.new_rule_id() returns bigint
language plpgsql
as $$
declare
    drawn bigint;
begin
    loop
        drawn := nextval('outbox.rule_id');
        exit when not exists (select from outbox.pause p where p.rule_id = drawn)
              and not exists (select from outbox.topic_limit l where l.rule_id = drawn)
              and not exists (select from outbox.ended_rule e where e.rule_id = drawn)
              and not exists (select from outbox.message m where m.parked = drawn);
    end loop;
    return drawn;
end
$$;

create function outbox.pause(topic text default null, key text default null) returns void
language plpgsql
as $$
begin
    if pause.topic is not null and pause.key is not null then
        perform outbox.refuse('give a topic or a key, not both', 'call pause for each');
    elsif pause.topic is not null then
        perform outbox.check_pattern(pause.topic);
    end if;
    loop
        insert into outbox.pause (rule_id, topic, key) values (outbox.new_rule_id(), pause.topic, pause.key)
        on conflict do nothing;
        exit when found or exists (
            select from outbox.pause p where p.topic is not distinct from pause.topic and p.key is not distinct from pause.key);
    end loop;
end
$$;
comment on function outbox.pause is 'Deliver no messages, or none of a topic (exact, or prefix.*) or of a key, until resume is called with the same arguments.';

create function outbox.resume(topic text default null, key text default null) returns boolean
language plpgsql
as $$
declare
    fault text;
begin
    if resume.topic is null and resume.key is null then
        fault := outbox.home_fault();
        if fault is not null then
            perform outbox.refuse(fault, 'let workers claim here with `outbox adopt`; until then all is paused');
        end if;
    end if;
    with over as (
        delete from outbox.pause p
        where p.topic is not distinct from resume.topic and p.key is not distinct from resume.key
        returning p.rule_id
    )
    insert into outbox.ended_rule (rule_id) select o.rule_id from over o;
    if found then
        perform outbox.wake();
        return true;
    end if;
    return false;
end
$$;
comment on function outbox.resume is 'End a pause of everything, of a topic or of a key. Returns whether there was one.';

create function outbox.limit_topic(topic text, rate double precision, burst integer default null) returns boolean
language plpgsql
as $$
declare
    wanted integer;
    was    boolean;
    rule   bigint := outbox.new_rule_id();
begin
    perform outbox.check_pattern(topic), outbox.commit_durably();
    if not rate between 0.0001 and 100000 then
        perform outbox.refuse(format('rate is %s messages a second, it must lie between 0.0001 and 100000', rate),
                              'pass null to lift the limit, or use pause');
    elsif not burst between 1 and 1000000 then
        perform outbox.refuse(format('burst is %s, it must lie between 1 and 1000000', burst));
    end if;
    wanted := coalesce(burst, greatest(1, ceil(rate))::integer);
    perform from outbox.topic_limit l where l.topic = limit_topic.topic for update;
    was := found;
    with before as (
        select l.* from outbox.topic_limit l where l.topic = limit_topic.topic
    ),
    lifted as (
        delete from outbox.topic_limit l using before b where l.topic = b.topic and limit_topic.rate is null
    ),
    changed as (
        insert into outbox.topic_limit as l (topic, rule_id, rate, burst)
        select limit_topic.topic, rule, limit_topic.rate, wanted where limit_topic.rate is not null
        on conflict on constraint topic_limit_pkey do update
            -- Earlier claims still count, so that setting a limit again gives no new burst.
            set rule_id = rule, rate = excluded.rate, burst = excluded.burst, given_until = '-infinity'
            where l.rate <> excluded.rate or l.burst <> excluded.burst
    )
    insert into outbox.ended_rule (rule_id)
    select b.rule_id from before b where limit_topic.rate is null or b.rate <> limit_topic.rate or b.burst <> wanted
    on conflict do nothing;
    perform outbox.wake();
    return was;
end
$$;
comment on function outbox.limit_topic is
    'Claim at most `rate` messages a second of a topic (exact, or prefix.*), and `burst` at once (default: one second''s worth). A null rate lifts the limit. Returns whether there was one.';

-- How many messages a limit allows now: of `slotted` ones, which were given a time that has come, and of `fresh` ones.
create function outbox.take_from_limit(
    rule bigint, slotted bigint, fresh bigint, now timestamptz,
    out slotted_taken bigint, out fresh_taken bigint, out slotted_from timestamptz, out fresh_from timestamptz, out step interval
)
language plpgsql
as $$
#variable_conflict use_variable
declare
    l      outbox.topic_limit;
    tokens bigint;
    earliest timestamptz;
begin
    select * into l from outbox.topic_limit t where t.rule_id = rule for update skip locked;
    if not found then  -- another transaction has the limit, or changes it: the next claim asks again
        slotted_taken := 0;
        fresh_taken := 0;
        return;
    end if;
    if l.given_until > now and not exists (
        select from outbox.message m where m.parked = rule and not m.ready and m.lease_token is null) then
        l.given_until := now;  -- the messages with times until then were cancelled
    end if;
    step := make_interval(secs => 1 / l.rate);
    l.used_until := least(greatest(l.used_until, now), now + step * l.burst);
    tokens := greatest(0, l.burst - ceil(extract(epoch from l.used_until - now)::float8 * l.rate - 1e-6));
    slotted_taken := least(slotted, tokens);
    -- No message overtakes those that wait for the time that they were given.
    fresh_taken := case when l.given_until > now or slotted > tokens then 0 else least(fresh, tokens - slotted_taken) end;
    l.used_until := l.used_until + step * (slotted_taken + fresh_taken);
    earliest := greatest(now, l.used_until - step * (l.burst - 1)) - step;
    slotted_from := earliest;
    fresh_from := greatest(earliest + step * (slotted - slotted_taken), l.given_until);
    update outbox.topic_limit t
    set used_until = l.used_until,
        given_until = case when fresh > fresh_taken then fresh_from + step * (fresh - fresh_taken) else l.given_until end
    where t.rule_id = rule;
end
$$;

create function outbox.call_next() returns trigger
language plpgsql
as $$
begin
    -- Most have no parked message behind them, and this check costs much less than an update that finds none.
    perform from outbox.message n where n.key = old.key and n.due_at = 'infinity' and n.parked is null order by n.seq, n.message_id limit 1;
    if not found then
        return null;
    end if;
    -- A locked message is skipped, so that no settlement waits for a transaction that cancels. The message called in its place finds
    -- that one before itself, and calls it (claim/restricted.sql).
    update outbox.message m
    set due_at = least(clock_timestamp(), m.available_at), ready = true
    where m.message_id = (select n.message_id from outbox.message n
                          where n.key = old.key and n.due_at = 'infinity' and n.parked is null
                          order by n.seq, n.message_id limit 1
                          for no key update skip locked)
      and not exists (select from outbox.message l where l.key = old.key and l.in_flight);
    return null;
end
$$;
comment on function outbox.call_next() is 'Trigger: a message with a key was deleted, so the next of its key is called.';

-- A message is parked behind another of its key only under that message's lock. So either this trigger sees it parked, or it is not
-- parked any more. Of a series only the last message is in flight and calls the next: none is parked behind the others, which have a
-- worker_id. A message that no worker holds, or that its worker has lost, has no worker_id, and calls.
create trigger call_next after delete on outbox.message
for each row when (old.key is not null and (old.in_flight or old.worker_id is null)) execute function outbox.call_next();

-- A safety net for call_next: for transactions that saw an older state of the table than they changed (repeatable read), or that locked
-- the only message to be called. It looks at the keys with parked messages, one by one through the index, however many messages a key
-- has. One call looks at a bounded number of keys, so that its time is bounded too.
create function outbox.call_sleepers(after text default '', keys integer default 10000, out called bigint, out last text)
language plpgsql
as $$
begin
    with recursive sleeper as (
        (select m.key, 1 as number from outbox.message m
         where m.due_at = 'infinity' and m.parked is null and m.key > after order by m.key limit 1)
        union all
        select (select m.key from outbox.message m
                where m.due_at = 'infinity' and m.parked is null and m.key > s.key order by m.key limit 1), s.number + 1
        from sleeper s where s.key is not null and s.number < keys
    ),
    awake as (
        update outbox.message m
        set due_at = least(clock_timestamp(), m.available_at), ready = true
        where m.message_id = any (array(
            select f.message_id
            from sleeper s,
                 lateral (select * from outbox.message f where f.key = s.key order by f.seq, f.message_id limit 1) f
            where f.due_at = 'infinity' and f.parked is null and f.lease_token is null
              and not exists (select from outbox.message l where l.key = s.key and l.in_flight)))
        returning m.message_id
    )
    select (select count(*) from awake), (select s.key from sleeper s where s.number = keys) into called, last;
    if called > 0 then
        perform outbox.wake();
    end if;
end
$$;
comment on function outbox.call_sleepers is
    'Call the first message of each key that waits although none of the key is in flight. Looks at `keys` keys behind the key `after`. Returns how many it called, and the key after which to continue; null at the end. Workers do it once a minute.';
