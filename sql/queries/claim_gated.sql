-- Lease up to $1 of the messages that have to pass gates: those with a key, a tenant, or a topic that is limited or paused.
--
-- They stand in lanes, one for each tenant, or without a tenant for each key. Lanes take turns, beginning behind lane $6, and each gets an
-- equal share of $1. Whoever is found in a lane is leased, or leaves it:
--   · paused: parked under the pause's number until that is over;
--   · behind another message of its key: parked until that one is deleted (outbox.call_next). It is parked only under that one's lock;
--     without it, that one is just going. Should that one be parked behind others itself, it is called;
--   · over its topic's limit: given a time, and parked until then.
-- So every message is met once or twice however many wait. Of a key one message is in flight, by a unique index: two claims that
-- both see one free at the same moment collide on it, and one of them is repeated. A suspect (claim.sql) goes before all others.
--
-- The columns are claim.sql's, and "lane" is where to begin next time. "more" asks for another claim at once, and only after one that
-- changed something: else somebody holds a lock, and "next_due_s" asks for patience.
--
-- $1 int: limit · $2 float: lease in seconds · $3 bigint: worker · $4 int: suspect after · $5 timestamptz: now, null for the server's ·
-- $6 text: lane behind which to begin, '' for the first
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
forgotten as (  -- not at once: a claim that began before the rule's end was seen may still park under it
    delete from outbox.ended_rule e
    where e.seen_at < now() - interval '1 minute' and not exists (select from outbox.message m where m.parked = e.rule_id)
),
filed as (
    update outbox.message m
    set ready = true
    where m.ctid = any (array(
        select w.ctid from outbox.message w
        where w.gated and not w.ready and w.due_at <= (select now from moment)
        order by w.due_at
        limit $1
        for update skip locked))
    returning m.message_id
),
turn as (
    select $6::text as lane, 0 as place, false as round
    union all
    select n.lane, t.place + 1, n.round
    from turn t
    cross join lateral (
        (select outbox.lane(m.tenant, m.key) as lane, false as round
         from outbox.message m
         where m.gated and m.ready and not t.round and outbox.lane(m.tenant, m.key) > t.lane
         order by outbox.lane(m.tenant, m.key) limit 1)
        union all  -- and once around: both ends of the walk are bounds of an index scan
        (select outbox.lane(m.tenant, m.key), true
         from outbox.message m
         where m.gated and m.ready
           and outbox.lane(m.tenant, m.key) > case when t.round then t.lane else '' end and outbox.lane(m.tenant, m.key) <= $6::text
         order by outbox.lane(m.tenant, m.key) limit 1)
        limit 1
    ) n
    where t.place < $1
),
lanes as materialized (
    select count(*) as n, greatest(1, $1 / greatest(1, count(*))) as share, (select lane from turn order by place desc limit 1) as last
    from turn
    where place > 0
),
candidate as materialized (
    select c.*, t.place as turn
    from turn t
    cross join lateral (
        select m.ctid as place, m.message_id, m.key, m.topic, m.seq, m.due_at, m.parked, m.deliveries >= $4 as suspect
        from outbox.message m
        where m.gated and m.ready and outbox.lane(m.tenant, m.key) = t.lane and m.due_at <= (select now from moment)
        order by m.due_at, m.seq
        limit (select share from lanes)
        for update skip locked
    ) c
    where t.place > 0 and not exists (select from outbox.pause where topic is null and key is null)
),
rules as materialized (
    select exists (select from outbox.pause) as paused, exists (select from outbox.topic_limit) as limited
),
looked_at as materialized (
    select c.*,
           case when (select paused from rules) then
               (select p.rule_id from outbox.pause p where outbox.matches(p.topic, c.topic) or p.key = c.key limit 1) end as pause,
           case when (select limited from rules) then
               (select l.rule_id from outbox.topic_limit l where outbox.matches(l.topic, c.topic) order by length(l.topic) desc limit 1) end as rule,
           case when c.key is not null then coalesce(
               (select f.message_id from outbox.message f where f.key = c.key and f.in_flight),
               (select h.message_id from outbox.message h where h.key = c.key order by h.seq limit 1)) end as head
    from candidate c
),
held as materialized (
    select h.message_id, h.due_at = 'infinity' and h.parked is null and h.lease_token is null as asleep
    from outbox.message h
    where h.message_id = any (array(select l.head from looked_at l where l.head <> l.message_id and l.pause is null))
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
suspect as materialized (  -- almost always none; beside one nobody asks a limit for what he would not be leased upon
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
    select f.place, k.rule
    from free f
    left join taken k on k.rule = f.rule
    where k.rule is null or f.nth <= case when f.slotted then k.slotted_taken else k.fresh_taken end
),
chosen as (  -- the heads must be locked before one of them is updated, upon which they could not be any more
    select place, rule
    from passed
    where (select count(*) from held) is not null
),
sent_away as (
    select l.place, 'infinity'::timestamptz as due_at, l.pause as parked
    from looked_at l
    where l.pause is not null or (l.head <> l.message_id and l.head in (select message_id from held))
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
    set due_at = (select now from moment) + make_interval(secs => $2),
        leased_until = (select now from moment) + make_interval(secs => $2),
        ready = false,
        in_flight = true,
        parked = c.rule,  -- should it come back, it has its place before those who have no time yet
        claimed_at = (select now from moment),
        lease_token = (select (random() * 9e15)::bigint),
        worker_id = $3,
        deliveries = m.deliveries + 1
    from chosen c
    where m.ctid = c.place
    returning
        m.message_id, m.seq, m.topic, m.key, m.payload, m.headers, m.target, m.deliveries, m.attempts,
        jsonb_array_length(m.errors) as setbacks, date_part('epoch', m.claimed_at - m.created_at) as age_s, m.lease_token, m.tenant,
        case when m.expires_at <= m.claimed_at then m.on_expiry end as expired,
        date_part('epoch', m.available_at) as due_s, m.available_at <= m.created_at as at_once
),
done as (
    select (select count(*) from claimed) + (select count(*) from parked) as met,
           exists (select from unparked) or exists (select from filed) or exists (select from called) as moved
)
select
    c.*,
    done.moved or (done.met > 0 and (
        lanes.n = $1
        or exists (select from candidate d group by d.turn having count(*) >= lanes.share)
        or (select count(*) from candidate) > done.met)) as more,
    case when done.met = 0 and lanes.n > 0 then 0.02
         else date_part('epoch', (select min(p.due_at) from parked p where p.due_at < 'infinity') - moment.now) end as next_due_s,
    coalesce(lanes.last, '') as lane
from moment
cross join lanes
cross join done
left join claimed c on true
order by c.seq
