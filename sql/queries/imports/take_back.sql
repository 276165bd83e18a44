-- Delete the record of rows that were moved, and take back their unsettled messages: waiting ones are cancelled, dead letters deleted.
-- A row stays if its message is in flight, or is in another state than before.
-- $1 bigint: import · $2 text[]: identities · $3 bool[]: whether the message was settled before
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
