-- Gates: what a message with a key, a tenant, or a topic that is limited or paused has to pass before it may be claimed
-- (sql/queries/claim_gated.sql). Everything else never comes near them.

create table outbox.pause (
    name       text        primary key,
    topic      text,
    key        text,
    paused_at  timestamptz not null default now(),
    paused_by  text        not null default session_user,
    resumed_at timestamptz,
    check (num_nonnulls(topic, key) <= 1)
);
comment on table outbox.pause is
    'What is not delivered now: everything (neither topic nor key), a topic (exact, or prefix.*), or a key. A row stays for a while after resume, until the messages that it parked have left.';

create table outbox.topic_limit (
    topic      text             primary key,
    rate       double precision not null check (rate > 0),
    burst      integer          not null check (burst >= 1),
    used_until timestamptz      not null default '-infinity',
    given_until timestamptz     not null default '-infinity'
)
with (fillfactor = 50);
comment on table outbox.topic_limit is 'Topics (exact, or prefix.*) of which at most `rate` messages a second are claimed, and `burst` at once.';
comment on column outbox.topic_limit.used_until is 'When the rate will have caught up with the claims so far: the theoretical arrival time of the generic cell rate algorithm.';
comment on column outbox.topic_limit.given_until is 'The last time that was given to a message which has to wait.';

create function outbox.matches(pattern text, topic text) returns boolean
language sql immutable parallel safe
as $$
    select case when right(pattern, 1) = '*' then starts_with(topic, left(pattern, -1)) else topic = pattern end
$$;
comment on function outbox.matches is 'Whether a topic is meant by a pattern: itself, prefix.*, or *.';

create function outbox.check_pattern(pattern text) returns void
language plpgsql
as $$
begin
    if pattern is null or pattern = '' or pattern ~ '\*.' or pattern ~ '[^.]\*$' then
        perform outbox.refuse(format('topic is %s', coalesce(quote_literal(pattern), 'null')), 'use an exact topic, or prefix.*');
    end if;
end
$$;

create function outbox.pause(topic text default null, key text default null) returns void
language plpgsql
as $$
declare
    name text := case when pause.topic is not null then 'topic ' || pause.topic when pause.key is not null then 'key ' || pause.key else 'everything' end;
begin
    if pause.topic is not null and pause.key is not null then
        perform outbox.refuse('give a topic or a key, not both', 'call pause for each');
    elsif pause.topic is not null then
        perform outbox.check_pattern(pause.topic);
    end if;
    insert into outbox.pause as p (name, topic, key) values (name, pause.topic, pause.key)
    on conflict on constraint pause_pkey do update
        set resumed_at = null, paused_at = now(), paused_by = session_user
        where p.resumed_at is not null;
end
$$;
comment on function outbox.pause is 'Deliver nothing any more, or nothing of a topic (exact, or prefix.*) or of a key, until resume is called likewise.';

create function outbox.resume(topic text default null, key text default null) returns boolean
language plpgsql
as $$
begin
    update outbox.pause p set resumed_at = now()
    where p.topic is not distinct from resume.topic and p.key is not distinct from resume.key and p.resumed_at is null;
    if found then
        perform outbox.wake();
    end if;
    return found;
end
$$;
comment on function outbox.resume is 'End a pause of everything, of a topic or of a key. Returns whether there was one.';

create function outbox.limit_topic(topic text, rate double precision, burst integer default null) returns void
language plpgsql
as $$
begin
    perform outbox.check_pattern(topic);
    if rate is null then
        delete from outbox.topic_limit l where l.topic = limit_topic.topic;
        perform outbox.wake();
        return;
    elsif rate <= 0 or rate = 'infinity' then
        perform outbox.refuse(format('rate is %s messages a second, it must be positive', rate), 'pass null to lift the limit, or use pause');
    elsif burst < 1 then
        perform outbox.refuse(format('burst is %s, it must be at least 1', burst));
    end if;
    insert into outbox.topic_limit as l (topic, rate, burst)
    values (limit_topic.topic, limit_topic.rate, coalesce(limit_topic.burst, greatest(1, ceil(limit_topic.rate))::integer))
    on conflict on constraint topic_limit_pkey do update
        set rate = excluded.rate, burst = excluded.burst, used_until = '-infinity', given_until = '-infinity';
end
$$;
comment on function outbox.limit_topic is
    'Claim at most `rate` messages a second of a topic (exact, or prefix.*), and `burst` at once (default: one second''s worth). A null rate lifts the limit.';

-- What a limit has left for messages that ask now: `slotted` ones, whose time was given before and has come, and `fresh` ones.
create function outbox.take_from_limit(
    topic text, slotted bigint, fresh bigint, now timestamptz,
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
    select * into l from outbox.topic_limit t where t.topic = topic for update;
    if not found then  -- lifted this very moment
        slotted_taken := slotted;
        fresh_taken := fresh;
        return;
    end if;
    step := make_interval(secs => 1 / l.rate);
    l.used_until := greatest(l.used_until, now);
    tokens := greatest(0, l.burst - ceil(extract(epoch from l.used_until - now)::float8 * l.rate - 1e-6));
    slotted_taken := least(slotted, tokens);
    -- Nobody overtakes those who wait for a time that they were given.
    fresh_taken := case when l.given_until > now or slotted > tokens then 0 else least(fresh, tokens - slotted_taken) end;
    l.used_until := l.used_until + step * (slotted_taken + fresh_taken);
    earliest := greatest(now, l.used_until - step * (l.burst - 1)) - step;
    slotted_from := earliest;
    fresh_from := greatest(earliest + step * (slotted - slotted_taken), l.given_until);
    update outbox.topic_limit t
    set used_until = l.used_until,
        given_until = case when fresh > fresh_taken then fresh_from + step * (fresh - fresh_taken) else l.given_until end
    where t.topic = topic;
end
$$;

create function outbox.call_next() returns trigger
language plpgsql
as $$
begin
    update outbox.message m
    set due_at = least(clock_timestamp(), m.available_at), ready = true
    where m.message_id = (select n.message_id from outbox.message n where n.key = old.key order by n.seq limit 1)
      and m.due_at = 'infinity' and m.parked is null;
    return null;
end
$$;
comment on function outbox.call_next() is 'Trigger: a message with a key has left, whoever took it away; the next of its key may come.';

-- At the gates a message that waits for another of its key is parked under that other's lock. So either this trigger sees it
-- parked, or it is parked no more.
create trigger call_next after delete on outbox.message
for each row when (old.key is not null) execute function outbox.call_next();
