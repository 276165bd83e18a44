-- What there is to claim now, and when there will be something.
--
-- "due": messages that claim.sql would find. "ruled": limits and pauses are in force, so that claim_ruled.sql has to find them. "gated":
-- messages stand at the gates, for claim_gated.sql. "next_due_s": seconds until a scheduled message or an abandoned lease falls due.
--
-- $1 timestamptz: now, null for the server's
with moment as materialized (
    select coalesce($1, now()) as now, not exists (select from outbox.pause where topic is null and key is null) as going
),
plain as materialized (
    select exists (
        select from outbox.message m
        where not m.gated and m.due_at <= moment.now and (m.leased_until is null or m.leased_until <= moment.now)) as due
    from moment
)
select
    moment.going and plain.due as due,
    exists (select from outbox.topic_limit) or exists (select from outbox.pause where key is null) as ruled,
    moment.going
        and (exists (select from outbox.message m where m.gated and m.ready)
             or exists (select from outbox.message m where m.gated and not m.ready and m.due_at <= moment.now)
             or exists (select from outbox.ended_rule)) as gated,
    date_part('epoch', least(
        (select min(m.due_at) from outbox.message m where not m.gated and m.due_at > moment.now),
        -- Leased messages keep their place in the order: as many are read here as are leased.
        case when not plain.due then
            (select min(m.leased_until) from outbox.message m where not m.gated and m.due_at <= moment.now and m.leased_until > moment.now)
        end,
        (select min(m.due_at) from outbox.message m where m.gated and not m.ready and m.due_at > moment.now and m.due_at < 'infinity'))
        - moment.now) as next_due_s
from moment, plain
