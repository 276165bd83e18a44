-- claim/plain.sql while there are limits or pauses. If a message's topic was limited or paused after it was enqueued, the message
-- becomes restricted, and is left to claim/restricted.sql.
--
-- $1 int: limit · $2 float: lease in seconds · $3 bigint: worker · $4 timestamptz: now, null for the server's · $5 float and
-- $6 bigint: due_at (Unix seconds) and seq behind which to begin · $7 bigint: bytes after which to take no more, at least 1
with rule as materialized (
    select topic from outbox.topic_limit
    union all
    select topic from outbox.pause where topic is not null
),
candidate as materialized (
    select l.place, l.ruled, sum(l.bytes) over (rows unbounded preceding) - l.bytes as before
    from (
        select c.ctid as place, c.bytes, exists (select from rule r where outbox.matches(r.topic, c.topic)) as ruled
        from outbox.message c
        where not c.restricted and c.due_at <= coalesce($4, now()) and (c.due_at, c.seq) > (to_timestamp($5), $6)
          and (c.leased_until is null or c.leased_until <= coalesce($4, now()))
          and not exists (select from outbox.pause where topic is null and key is null)
        order by c.due_at, c.seq
        limit $1
        for update skip locked
    ) l
),
sent as (
    update outbox.message m
    set restricted = true
    where m.ctid = any (array(select place from candidate where ruled))
)
update outbox.message m
set leased_until = coalesce($4, now()) + make_interval(secs => $2),
    claimed_at = coalesce($4, now()),
    lease_token = (select (random() * 9e15)::bigint),
    worker_id = $3,
    deliveries = m.deliveries + 1
where m.ctid = any (array(select place from candidate where not ruled and before < $7))
returning
    m.message_id, m.seq, m.topic, m.key, m.payload, m.headers, m.target, m.deliveries, m.attempts,
    jsonb_array_length(m.errors)
        + (greatest(m.created_at, m.available_at) < (select coalesce((select u.since from outbox.uptime u), now())))::int as setbacks,
    date_part('epoch', m.claimed_at - m.created_at) as age_s, m.lease_token, m.tenant,
    case when m.expires_at <= m.claimed_at then outbox.expiry(m) end as expired,
    date_part('epoch', m.due_at) as due_s, m.available_at <= m.created_at as at_once,
    case when m.bytes > 4096 then m.bytes end as large_bytes
