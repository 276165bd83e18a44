-- End a rollback, unless a later one has begun. An import without rows is deleted; any other may run again.
-- $1 bigint: import · $2 int: the rollback's number
with kept as (
    update outbox.import i set rolling_back = false
    where i.import_id = $1 and i.rollbacks = $2 and exists (select from outbox.imported r where r.import_id = i.import_id)
)
delete from outbox.import i
where i.import_id = $1 and i.rollbacks = $2 and not exists (select from outbox.imported r where r.import_id = i.import_id)
