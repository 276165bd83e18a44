-- How many unsettled messages are in which state, which keys are blocked, and what pauses hold, as one JSON object.
-- Of a table with more than $1 pages, only so many are read, and the result is scaled up. Otherwise each number is exact.
--
-- $1 int: pages of a table that are read at most
with share as materialized (
    select least(100, 100.0 * $1 * current_setting('block_size')::int / greatest(1, pg_relation_size('outbox.message'))) as message
),
seen as materialized (
    select m.message_id, m.key, m.topic, m.due_at, m.available_at, m.leased_until, m.attempts, m.errors
    from share, lateral (select * from outbox.message tablesample system (share.message) repeatable (0)) m
)
select json_build_object(
    'messages', (
        select json_build_object(
            'pending', round(count(*) filter (where s.due_at <= now() and (s.leased_until is null or s.leased_until <= now())) * 100 / max(share.message)),
            'processing', round(count(*) filter (where s.leased_until > now()) * 100 / max(share.message)),
            'scheduled', round(count(*) filter (where s.due_at > now() and s.due_at < 'infinity' and s.leased_until is null) * 100 / max(share.message)),
            'waiting', round(count(*) filter (where s.due_at = 'infinity') * 100 / max(share.message)),
            'retrying', round(count(*) filter (where s.attempts > 0 or s.errors <> '[]') * 100 / max(share.message)),
            'oldest_pending_s', extract(epoch from now() - min(s.available_at) filter (where s.available_at <= now() and isfinite(s.available_at))))
        from share left join seen s on true),
    'blocked_keys', (  -- keys that wait because their first message has failed or is paused
        select coalesce(json_agg(b), '[]') from (
            select h.key, h.message_id, h.parked, h.attempts, h.errors -> -1 ->> 'detail' as last_error,
                   w.waiting - (h.due_at = 'infinity')::int as waiting,
                   extract(epoch from nullif(h.due_at, 'infinity') - now()) as next_try_s
            from (select s.key, round(count(*) * 100 / share.message) as waiting
                  from seen s, share where s.key is not null and s.due_at = 'infinity' group by s.key, share.message
                  order by waiting desc limit 1000) w,
                 lateral (select * from outbox.message h where h.key = w.key order by h.seq, h.message_id limit 1) h
            where h.errors <> '[]' or h.parked is not null
            order by w.waiting desc limit 5) b),
    'held_by_pauses', (  -- by the pause's rule: what it keeps, also messages that no claim has found yet
        select coalesce(json_object_agg(p.rule_id, (
            select coalesce(round(count(*) * 100 / max(share.message)), 0)
            from share join seen s on (p.topic is null or outbox.matches(p.topic, s.topic)) and (p.key is null or s.key = p.key)
                                           and (s.leased_until is null or s.leased_until <= now()))), '{}')
        from outbox.pause p)
)
