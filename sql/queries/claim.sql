-- Lease up to $1 due messages for $2 seconds to worker $3, in the order in which they fell due.
--
-- A message whose last $4 claims ended without any outcome may be what kills its workers. It is a suspect, and comes alone: a claim
-- ends before the first suspect, or consists of it. So a crash is counted against nobody else.
--
-- Messages that must pass gates are not found here (claim_gated.sql); "gated" says whether any stand there. A message whose topic has
-- been limited or paused since it was enqueued is sent there.
--
-- The candidates are updated through their ctid, which they keep while this statement holds their locks: with sequential scans off,
-- as the worker has them, no plan can read more rows than are taken. One row always comes back, so that also an empty claim says
-- whether more are due and when the next one will be.
--
-- $1 int: limit · $2 float: lease in seconds · $3 bigint: worker · $4 int: suspect after · $5 timestamptz: now, null for the server's
with rule as materialized (
    select topic from outbox.topic_limit
    union all
    select topic from outbox.pause where topic is not null
),
candidate as materialized (
    select m.ctid as place, m.due_at, m.seq, m.deliveries >= $4 as suspect,
           (select count(*) > 0 from rule) and exists (select from rule r where outbox.matches(r.topic, m.topic)) as ruled
    from outbox.message m
    where not m.gated and m.due_at <= coalesce($5, now())
      and not exists (select from outbox.pause where topic is null and key is null)
    order by m.due_at, m.seq
    limit $1
    for update of m skip locked
),
sent as (
    update outbox.message m
    set gated = true
    where m.ctid = any (array(select place from candidate where ruled))
    returning m.message_id
),
chosen as (
    select place
    from (
        select place,
               bool_or(suspect) over earlier as behind_suspect,
               row_number() over earlier as position
        from candidate
        where not ruled
        window earlier as (order by due_at, seq)
    ) ranked
    where not behind_suspect or position = 1
),
claimed as (
    update outbox.message m
    set due_at = coalesce($5, now()) + make_interval(secs => $2),
        claimed_at = coalesce($5, now()),
        lease_token = (select (random() * 9e15)::bigint),
        worker_id = $3,
        deliveries = m.deliveries + 1
    where m.ctid = any (array(select place from chosen))
    returning m.*
),
next as (
    select least(
        (select min(m.due_at) from outbox.message m where not m.gated and m.due_at > coalesce($5, now())),
        (select min(m.due_at) from outbox.message m where m.gated and not m.ready and m.due_at > coalesce($5, now()) and m.due_at < 'infinity')) as due_at
)
select
    c.message_id, c.seq, c.topic, c.key, c.payload, c.headers, c.target, c.deliveries, c.attempts,
    jsonb_array_length(c.errors) as setbacks,
    extract(epoch from c.claimed_at - c.created_at)::float8 as age_s,
    c.lease_token, c.tenant,
    case when c.expires_at <= coalesce($5, now()) then c.on_expiry end as expired,
    (select count(*) = $1 or count(*) > (select count(*) from claimed) + (select count(*) from sent) from candidate) as more,
    (select coalesce(bool_or(f.deliveries = 1 and f.errors = '[]' and f.available_at <= f.created_at), false) from claimed f) as fresh,
    extract(epoch from next.due_at - coalesce($5, now()))::float8 as next_due_s,
    (exists (select from outbox.message m where m.gated and m.ready)
     or exists (select from outbox.message m where m.gated and not m.ready and m.due_at <= coalesce($5, now()))
     or exists (select from sent)
     or exists (select from outbox.ended_rule))
        and not exists (select from outbox.pause where topic is null and key is null) as gated
from next
left join claimed c on true
order by c.seq
