-- What there is to claim now, and when there will be something.
--
-- "due": messages that claim/plain.sql would find. "ruled": limits and pauses are in force, so that claim/ruled.sql has to find them.
-- "restricted": messages wait for claim/restricted.sql. "next_due_s": seconds until a scheduled message or an abandoned lease is due.
-- "held": other workers than $2 hold leases, or may, because there is enough for all. Only workers with a presence count, because only
-- their death would show (presence/absent.sql).
--
-- $1 timestamptz: now, null for the server's · $2 bigint: worker that asks, null for none
with moment as materialized (
    select coalesce($1, now()) as now, not exists (select from outbox.pause where topic is null and key is null) as going
),
plain as materialized (
    select exists (
        select from outbox.message m
        where not m.restricted and m.due_at <= moment.now and (m.leased_until is null or m.leased_until <= moment.now)) as due
    from moment
),
others as materialized (
    select array(select w.worker_id from outbox.worker w where w.presence is not null and w.worker_id <> $2) as ids
)
select
    moment.going and plain.due as due,
    exists (select from outbox.topic_limit) or exists (select from outbox.pause where key is null) as ruled,
    moment.going
        and (exists (select from outbox.message m
                     where m.restricted and m.ready and (m.leased_until is null or m.leased_until <= moment.now))
             or exists (select from outbox.message m where m.restricted and not m.ready and m.due_at < 'infinity' and m.due_at <= moment.now)
             or exists (select from outbox.ended_rule)) as restricted,
    date_part('epoch', least(
        (select min(m.due_at) from outbox.message m where not m.restricted and m.due_at > moment.now and m.due_at < 'infinity'),
        leased.until,
        (select min(m.due_at) from outbox.message m where m.restricted and not m.ready and m.due_at > moment.now and m.due_at < 'infinity'))
        - moment.now) as next_due_s,
    cardinality(others.ids) > 0 and (
        (moment.going and plain.due) or leased.by_others
        or exists (select from outbox.message m where m.in_flight and m.leased_until > moment.now and m.worker_id = any (others.ids))) as held
from moment, plain, others, lateral (
    -- Leased messages keep their place in the order, so as many are read here as are leased.
    select min(m.leased_until) as until, coalesce(bool_or(m.worker_id = any (others.ids)), false) as by_others
    from outbox.message m
    where not plain.due and not m.restricted and m.due_at <= moment.now and m.leased_until > moment.now
) leased
