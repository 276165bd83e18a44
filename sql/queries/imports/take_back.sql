-- Forget rows that were moved, and take back what of their messages is not settled: waiting ones are cancelled, dead letters deleted.
-- A row whose message has got another fate than was seen stays, and so does one whose message is in flight.
-- $1 bigint: import · $2 text[]: identities · $3 bool[]: whether the message was seen settled
with asked as materialized (
    select r.identity, r.message_id, a.settled, outbox.cancel(r.message_id) as cancelled
    from unnest($2::text[], $3::bool[]) as a (identity, settled)
    join outbox.imported r on r.import_id = $1 and r.identity = a.identity
),
discarded as (
    delete from outbox.dead_letter d
    using asked a
    where d.message_id = a.message_id and not a.settled
    returning d.message_id
)
delete from outbox.imported r
using asked a left join discarded d using (message_id)
where r.import_id = $1
  and r.identity = a.identity
  and case when a.settled then a.cancelled is null else a.cancelled or d.message_id is not null end
returning r.identity
