-- Delete dead letters for ever. Returns the ids that were there. $1 uuid[]: messages
with chosen as materialized (
    select d.message_id from outbox.dead_letter d where d.message_id = any ($1::uuid[]) order by d.seq for update
)
delete from outbox.dead_letter d using chosen c where d.message_id = c.message_id
returning d.message_id
