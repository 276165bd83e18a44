-- End a rollback: an import without rows is forgotten, any other may be run again. $1 bigint: import
with kept as (
    update outbox.import i set rolling_back = false
    where i.import_id = $1 and exists (select from outbox.imported r where r.import_id = i.import_id)
)
delete from outbox.import i
where i.import_id = $1 and not exists (select from outbox.imported r where r.import_id = i.import_id)
