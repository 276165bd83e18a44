-- Gates: what a message with a key, a tenant, or a topic that is limited or paused has to pass before it may be claimed
-- (sql/queries/claim_gated.sql). Everything else never comes near them.

create sequence outbox.rule_id;

create table outbox.pause (
    rule_id   bigint      primary key default nextval('outbox.rule_id'),
    topic     text        unique,
    key       text        unique,
    paused_at timestamptz not null default now(),
    paused_by text        not null default session_user,
    check (num_nonnulls(topic, key) <= 1)
);
create unique index pause_everything on outbox.pause ((true)) where topic is null and key is null;
comment on table outbox.pause is 'What is not delivered now: a topic (exact, or prefix.*), a key, or with neither everything.';

create trigger switch after insert or delete on outbox.pause
for each statement execute function outbox.tell_switch();

create table outbox.topic_limit (
    topic       text             primary key,
    rule_id     bigint           not null default nextval('outbox.rule_id'),
    rate        double precision not null check (rate > 0),
    burst       integer          not null check (burst >= 1),
    used_until  timestamptz      not null default '-infinity',
    given_until timestamptz      not null default '-infinity'
)
with (fillfactor = 50);
comment on table outbox.topic_limit is 'Topics (exact, or prefix.*) of which at most `rate` messages a second are claimed, and `burst` at once.';
comment on column outbox.topic_limit.rule_id is 'New whenever the limit changes, so that what was parked under the old one gets new times.';
comment on column outbox.topic_limit.used_until is 'When the rate will have caught up with the claims so far: the theoretical arrival time of the generic cell rate algorithm.';
comment on column outbox.topic_limit.given_until is 'The last time that was given to a message which has to wait.';

create table outbox.ended_rule (
    rule_id  bigint      primary key,
    ended_at timestamptz not null default now()
);
comment on table outbox.ended_rule is 'Pauses and limits that are over, until the claims have brought back what is parked under them.';

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
begin
    if pause.topic is not null and pause.key is not null then
        perform outbox.refuse('give a topic or a key, not both', 'call pause for each');
    elsif pause.topic is not null then
        perform outbox.check_pattern(pause.topic);
    end if;
    insert into outbox.pause (topic, key) values (pause.topic, pause.key)
    on conflict do nothing;
end
$$;
comment on function outbox.pause is 'Deliver nothing any more, or nothing of a topic (exact, or prefix.*) or of a key, until resume is called likewise.';

create function outbox.resume(topic text default null, key text default null) returns boolean
language plpgsql
as $$
begin
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

create function outbox.limit_topic(topic text, rate double precision, burst integer default null) returns void
language plpgsql
as $$
begin
    perform outbox.check_pattern(topic);
    if rate <= 0 or rate = 'infinity' then
        perform outbox.refuse(format('rate is %s messages a second, it must be positive', rate), 'pass null to lift the limit, or use pause');
    elsif burst < 1 then
        perform outbox.refuse(format('burst is %s, it must be at least 1', burst));
    end if;
    with over as (
        delete from outbox.topic_limit l where l.topic = limit_topic.topic
        returning l.rule_id
    )
    insert into outbox.ended_rule (rule_id) select o.rule_id from over o;
    if rate is not null then
        insert into outbox.topic_limit (topic, rate, burst)
        values (limit_topic.topic, limit_topic.rate, coalesce(limit_topic.burst, greatest(1, ceil(limit_topic.rate))::integer));
    end if;
    perform outbox.wake();
end
$$;
comment on function outbox.limit_topic is
    'Claim at most `rate` messages a second of a topic (exact, or prefix.*), and `burst` at once (default: one second''s worth). A null rate lifts the limit.';

-- What a limit has left for messages that ask now: `slotted` ones, whose time was given before and has come, and `fresh` ones.
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
    select * into l from outbox.topic_limit t where t.rule_id = rule for update;
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
    where t.rule_id = rule;
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
