-- Lease up to $1 due messages for $2 seconds to worker $3, in the order in which they became due, beginning behind ($5, $6).
--
-- Most messages are claimed here, so it does nothing else: claim/outlook.sql reports what else there is to do. claim/ruled.sql runs in its
-- place while a topic is limited or anything is paused.
--
-- A lease changes no indexed column, and there is room for it on the message's own page (fillfactor), so no index is written (HOT).
-- Therefore leased messages are still read here, and so are index entries of messages that have gone. A claim that follows a full one
-- begins behind them.
--
-- The rows are updated by their ctid, which they keep while this statement holds their locks. With sequential scans off, as the worker has
-- them, no plan can read more rows than are taken.
--
-- It stops taking when its messages hold $7 bytes. The rows that it has locked beyond that are free again when it ends; the worker's next
-- claim asks for fewer.
--
-- $1 int: limit · $2 float: lease in seconds · $3 bigint: worker · $4 timestamptz: now, null for the server's · $5 float and
-- $6 bigint: due_at (Unix seconds) and seq behind which to begin · $7 bigint: bytes after which to take no more, at least 1
update outbox.message m
set leased_until = coalesce($4, now()) + make_interval(secs => $2),
    claimed_at = coalesce($4, now()),
    lease_token = (select (random() * 9e15)::bigint),
    worker_id = $3,
    deliveries = m.deliveries + 1
where m.ctid = any ((
    select case
        when t.bytes <= $7 then t.places
        else (  -- rare: to add up row by row costs more for each message
            select array_agg(p.place)
            from (select u.place, sum(x.bytes) over (order by u.nth) - x.bytes as before
                  from unnest(t.places) with ordinality as u (place, nth),
                       lateral (select y.bytes from outbox.message y where y.ctid = u.place) x) p
            where p.before < $7)
        end
    from (
        select array_agg(l.place) as places, sum(l.bytes) as bytes
        from (
            select c.ctid as place, c.bytes
            from outbox.message c
            where not c.restricted and c.due_at <= coalesce($4, now()) and (c.due_at, c.seq) > (to_timestamp($5), $6)
              and (c.leased_until is null or c.leased_until <= coalesce($4, now()))
              and not exists (select from outbox.pause where key is null) and not exists (select from outbox.topic_limit)
            order by c.due_at, c.seq
            limit $1
            for update skip locked
        ) l
    ) t)::tid[])
returning
    m.message_id, m.seq, m.topic, m.key, m.payload, m.headers, m.target, m.deliveries, m.attempts,
    jsonb_array_length(m.errors)
        + (greatest(m.created_at, m.available_at) < (select coalesce((select u.since from outbox.uptime u), now())))::int as setbacks,
    date_part('epoch', m.claimed_at - m.created_at) as age_s, m.lease_token, m.tenant,
    case when m.expires_at <= m.claimed_at then outbox.expiry(m) end as expired,
    date_part('epoch', m.due_at) as due_s, m.available_at <= m.created_at as at_once,
    case when m.bytes > 4096 then m.bytes end as large_bytes
