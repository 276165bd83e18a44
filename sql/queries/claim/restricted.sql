-- Lease up to $1 restricted messages: those with a key, a tenant, or a topic that is limited or paused.
--
-- They are in lanes: one for each tenant, and without a tenant one for each key. Lanes take turns, beginning behind lane $6. A tenant's
-- lane gets an equal share of $1, a key's at most $7. The claim leases each message that it finds, or parks it if it may not run yet:
--   · paused: parked under the pause's number until the pause ends;
--   · behind another message of its key: parked until that one is deleted (outbox.call_next). It is parked only under the lock of that
--     message; without that lock, that message is just leaving. If that message is itself parked behind others, it is called;
--   · over its topic's limit: given a time, and parked until then.
-- So each message is read once or twice, however many wait. A suspect, a message with which workers died, goes first and alone.
--
-- Up to $7 messages of a key go together: the first ones, if each of them may go now, parked behind each other or not. Only the last of
-- such a series is "in_flight". A unique index on it keeps the key for its worker: if two claims find the key free at the same moment, one
-- fails on the index and is repeated. The others stay in the lane unchanged, so that their lease is written to no index. The lane of a
-- key is skipped while a message of the key is in flight, so that none behind it must be parked. A message is parked only behind the
-- last of a series, because the deletion of the others calls none.
--
-- If the sequence was left behind, by a restore for example, numbers repeat. Then the message id decides.
--
-- The columns are those of claim/plain.sql; "lane" is where to begin next time. "more" is true if another claim is worthwhile at once:
-- only if this one changed something. Otherwise another transaction holds a lock, and "next_due_s" is a short pause.
--
-- $1 int: limit · $2 float: lease in seconds · $3 bigint: worker · $4 int: suspect after · $5 timestamptz: now, null for the server's ·
-- $6 text: lane behind which to begin, '' for the first · $7 int: messages of one key that may go together · $8 bigint: bytes after which
-- to take no more, at least 1
with recursive moment as materialized (
    select coalesce($5, now()) as now
),
unparked as (
    update outbox.message m
    set parked = null, due_at = least(m.available_at, (select now from moment)), ready = true
    where m.ctid = any (array(
        select p.ctid from outbox.message p
        where p.parked = any (array(select rule_id from outbox.ended_rule)) and not p.ready and p.lease_token is null
        limit $1
        for update skip locked))
    returning m.message_id
),
seen as (
    update outbox.ended_rule e
    set seen_at = clock_timestamp()
    where e.rule_id = any (array(select s.rule_id from outbox.ended_rule s where s.seen_at is null for update skip locked))
),
forgotten as (  -- not at once: a claim that began before may still park messages under the rule
    delete from outbox.ended_rule e
    where e.seen_at < now() - interval '1 minute' and not exists (select from outbox.message m where m.parked = e.rule_id)
),
filed as (  -- also messages that a worker did not settle in time: it still may, but nothing waits for it
    update outbox.message m
    set ready = true, in_flight = false, worker_id = null
    where m.ctid = any (array(
        select w.ctid from outbox.message w
        where w.restricted and not w.ready and w.due_at < 'infinity' and w.due_at <= (select now from moment)
        order by w.due_at
        limit $1
        for update skip locked))
    returning m.message_id
),
turn as (
    select $6::text as lane, 0 as step, false as round, false as open, 0::bigint as place, 0::bigint as ready
    union all
    select n.lane, t.step + 1, n.round, f.open, t.place + sign(f.free)::bigint, t.ready + f.free
    from turn t
    cross join lateral (
        (select outbox.lane(m.tenant, m.key) as lane, case when m.tenant is null then m.key end as key, false as round
         from outbox.message m
         where m.restricted and m.ready and not t.round and outbox.lane(m.tenant, m.key) > t.lane
         order by outbox.lane(m.tenant, m.key) limit 1)
        union all  -- and once around; both ends are bounds of an index scan
        (select outbox.lane(m.tenant, m.key), case when m.tenant is null then m.key end, true
         from outbox.message m
         where m.restricted and m.ready
           and outbox.lane(m.tenant, m.key) > case when t.round then t.lane else '' end and outbox.lane(m.tenant, m.key) <= $6::text
         order by outbox.lane(m.tenant, m.key) limit 1)
        limit 1
    ) n
    cross join lateral (
        select case when exists (select from outbox.message b
                                 where b.key = n.key and b.in_flight and b.leased_until > (select now from moment)) then 0
                    else (select count(*)
                          from (select
                                from outbox.message m
                                where m.restricted and m.ready and outbox.lane(m.tenant, m.key) = n.lane
                                  and m.due_at <= (select now from moment)
                                  and (m.leased_until is null or m.leased_until <= (select now from moment))
                                limit case when n.key is null then 1 else $7 end) m)  -- a tenant's lane gets a share
               end as free,
               n.key is not null and coalesce((
                   select h.ready and h.due_at <= (select now from moment)
                   from outbox.message h
                   where h.key = n.key order by h.seq, h.message_id limit 1), false) as open
        offset 0  -- each of these once
    ) f
    where t.ready < $1 and t.step < $1 + 500
),
lanes as materialized (
    select max(place) as n, greatest(1, $1 / greatest(1, max(place))) as share,
           max(ready) >= $1 or max(step) >= $1 + 500 as cut_short, (select lane from turn order by step desc limit 1) as last
    from turn
),
candidate as materialized (
    select c.*, t.step as turn, t.open, l.room, row_number() over (order by t.step, c.due_at, c.seq) as rank,
           sum(c.bytes) over (order by t.step, c.due_at, c.seq rows unbounded preceding) - c.bytes as before
    from lanes
    cross join (select t.*, t.place - lag(t.place) over (order by t.step) as free from turn t) t
    cross join lateral (select case when t.open then $7 else lanes.share end as room) l
    cross join lateral (
        select m.ctid as place, m.message_id, m.key, m.tenant, m.topic, m.seq, m.due_at, m.parked, m.bytes, m.deliveries >= $4 as suspect
        from outbox.message m
        where m.restricted and m.ready and outbox.lane(m.tenant, m.key) = t.lane and m.due_at <= (select now from moment)
          and (m.leased_until is null or m.leased_until <= (select now from moment))
        order by m.due_at, m.seq
        limit l.room
        for update skip locked
    ) c
    where t.free > 0 and not exists (select from outbox.pause where topic is null and key is null)
),
rules as materialized (
    select exists (select from outbox.pause) as paused, exists (select from outbox.topic_limit) as limited
),
ruled as materialized (
    select c.*,
           case when (select paused from rules) then
               (select p.rule_id from outbox.pause p where outbox.matches(p.topic, c.topic) or p.key = c.key limit 1) end as pause,
           case when (select limited from rules) then
               (select l.rule_id from outbox.topic_limit l where outbox.matches(l.topic, c.topic) order by length(l.topic) desc limit 1) end as rule
    from candidate c
    where c.rank <= $1 and c.before < $8
),
front as materialized (  -- of each key: the message in flight, and the first ones in their order
    select k.key, (select b.message_id from outbox.message b where b.key = k.key and b.in_flight) as busy,
           l.line, l.places, l.sizes
    from (select r.key from ruled r where r.key is not null group by r.key) k
    cross join lateral (
        select array_agg(n.message_id) as line, array_agg(n.ctid) as places, array_agg(n.bytes) as sizes
        from (select m.message_id, m.ctid, m.bytes from outbox.message m where m.key = k.key order by m.seq, m.message_id limit $7) n
    ) l
),
asleep as materialized (  -- parked behind a first one that may go now: they go with it
    select m.ctid as place, m.message_id, m.key, m.seq
    from outbox.message m
    where m.ctid = any (array(
            select b.place
            from (
                select l.place, sum(l.bytes) over (order by f.key, l.nth) - l.bytes as before
                from front f, unnest(f.line[2:], f.places[2:], f.sizes[2:]) with ordinality as l (message_id, place, bytes, nth)
                where f.busy is null and l.message_id not in (select r.message_id from ruled r)
                order by f.key, l.nth
                limit greatest(0, $1 - (select count(*) from ruled r left join front f on f.key = r.key
                                        where r.key is null or r.message_id = any (f.line)))
            ) b
            where b.before < $8 - (select coalesce(sum(r.bytes), 0) from ruled r)))
      and m.due_at >= 'infinity' and m.parked is null and m.deliveries < $4  -- with "=" a plan could read all parked messages
      and not ((select paused from rules) and exists (select from outbox.pause p where outbox.matches(p.topic, m.topic)))
      and not ((select limited from rules) and exists (select from outbox.topic_limit l where outbox.matches(l.topic, m.topic)))
    for update skip locked
),
in_line as materialized (
    select c.*, coalesce(f.busy, f.line[1]) as head,
           f.busy is null and array_position(f.line, c.message_id) = count(*) over before and bool_and(c.may_go) over before as goes
    from (select r.place, r.message_id, r.key, r.tenant, r.seq, r.due_at, r.parked, r.suspect, r.turn, r.pause, r.rule,
                 r.pause is null and r.rule is null and not r.suspect as may_go
          from ruled r
          union all
          select a.place, a.message_id, a.key, null, a.seq, null, null, false, null, null, null, true from asleep a) c
    left join front f on f.key = c.key
    window before as (partition by c.key order by c.seq, c.message_id)
),
looked_at as materialized (
    select i.*, coalesce(i.goes and i.head <> i.message_id, false) as follows,
           coalesce(i.goes and lead(i.goes) over (partition by i.key order by i.seq, i.message_id), false) as followed,
           -- in the lane of its key alone, a message behind those that go blocks no other
           i.pause is null and i.head <> i.message_id and not coalesce(i.goes or (i.tenant is null and first_value(i.goes) over (partition by i.key order by i.seq, i.message_id)), false) as behind
    from in_line i
),
held as materialized (
    select h.message_id, h.due_at = 'infinity' and h.parked is null as asleep
    from outbox.message h
    where h.message_id = any (array(select l.head from looked_at l where l.behind))
      and (h.in_flight or h.worker_id is null)
    for no key update skip locked
),
called as (
    update outbox.message m
    set due_at = least(m.available_at, (select now from moment)), ready = true
    where m.message_id = any (array(select message_id from held where asleep))
    returning m.message_id
),
at_the_front as materialized (
    select *, coalesce(parked = rule, false) as slotted
    from looked_at
    where pause is null and (head is null or head = message_id)
),
suspect as materialized (  -- almost always none; beside one, no limit is used for messages that are not leased
    select place from at_the_front where suspect order by turn, due_at, seq limit 1
),
eligible as materialized (
    select f.* from at_the_front f where (select count(*) = 0 from suspect) or f.place = (select place from suspect)
),
free as materialized (
    select f.*, null::bigint as nth from eligible f where f.rule is null
    union all
    select f.*, row_number() over (partition by f.rule, f.slotted order by f.due_at, f.seq) from eligible f where f.rule is not null
),
taken as materialized (
    select a.rule, k.*
    from (select f.rule, count(*) filter (where f.slotted) as slotted, count(*) filter (where not f.slotted) as fresh
          from free f where f.rule is not null group by f.rule) a
    cross join lateral outbox.take_from_limit(a.rule, a.slotted, a.fresh, (select now from moment)) k
),
passed as materialized (
    select f.place, f.followed, k.rule
    from free f
    left join taken k on k.rule = f.rule
    where k.rule is null or f.nth <= case when f.slotted then k.slotted_taken else k.fresh_taken end
),
chosen as (  -- the heads must be locked first: after an update they could not be
    select c.*
    from (select p.place, p.rule, not p.followed as last from passed p
          union all
          select l.place, null, not l.followed from looked_at l where l.follows and (select count(*) = 0 from suspect)) c
    where (select count(*) from held) is not null
),
sent_away as (
    select l.place, 'infinity'::timestamptz as due_at, l.pause as parked
    from looked_at l
    where l.pause is not null
       or (l.behind and l.head in (select message_id from held))
    union all
    select f.place,
           case when f.slotted then k.slotted_from + k.step * (f.nth - k.slotted_taken) else k.fresh_from + k.step * (f.nth - k.fresh_taken) end,
           f.rule
    from free f
    join taken k on k.rule = f.rule
    where f.nth > case when f.slotted then k.slotted_taken else k.fresh_taken end and k.step is not null
),
parked as (
    update outbox.message m
    set due_at = s.due_at, parked = s.parked, ready = false, leased_until = null, lease_token = null, in_flight = false, worker_id = null
    from sent_away s
    where m.ctid = s.place
    returning m.due_at
),
claimed as (
    update outbox.message m
    set due_at = case when m.ready and not c.last then m.due_at else (select now from moment) + make_interval(secs => $2) end,
        leased_until = (select now from moment) + make_interval(secs => $2),
        ready = m.ready and not c.last,
        in_flight = c.last,
        parked = c.rule,  -- if it comes back, it is before those that have no time yet
        claimed_at = (select now from moment),
        lease_token = (select (random() * 9e15)::bigint),
        worker_id = $3,
        deliveries = m.deliveries + 1
    from chosen c
    where m.ctid = c.place
    returning
        m.message_id, m.seq, m.topic, m.key, m.payload, m.headers, m.target, m.deliveries, m.attempts,
        jsonb_array_length(m.errors)
            + (greatest(m.created_at, m.available_at) < (select coalesce((select u.since from outbox.uptime u), now())))::int as setbacks,
        date_part('epoch', m.claimed_at - m.created_at) as age_s, m.lease_token, m.tenant,
        case when m.expires_at <= m.claimed_at then outbox.expiry(m) end as expired,
        date_part('epoch', m.available_at) as due_s, m.available_at <= m.created_at as at_once,
        case when m.bytes > 4096 then m.bytes end as large_bytes
),
done as (
    select (select count(*) from claimed) + (select count(*) from parked) as handled,
           exists (select from unparked) or exists (select from filed) or exists (select from called) as moved
)
select
    c.*,
    done.moved or (done.handled > 0 and (
        lanes.cut_short
        or exists (select from candidate d where not d.open group by d.turn having count(*) >= min(d.room))
        or exists (select from looked_at l where l.behind)
        or (select count(*) from candidate) + (select count(*) from asleep) > done.handled)) as more,
    case when done.handled = 0 and (lanes.n > 0 or lanes.cut_short) then 0.02
         else date_part('epoch', (select min(p.due_at) from parked p where p.due_at < 'infinity') - moment.now) end as next_due_s,
    coalesce(lanes.last, '') as lane
from moment
cross join lanes
cross join done
left join claimed c on true
order by c.seq, c.message_id
