-- Rows that were moved before: by this import, by identity; by any import, by workflow.
-- $1 bigint: import, null if it has not begun · $2 text[]: identities · $3 text[]: workflow ids · $4 text[]: their namespaces
select true as same_row, i.name, r.identity, r.workflow_id, r.namespace
from outbox.imported r
join outbox.import i using (import_id)
where r.import_id = $1 and r.identity = any ($2::text[])
union all
select false, i.name, r.identity, r.workflow_id, r.namespace
from unnest($3::text[], $4::text[]) as wanted (workflow_id, namespace)
join outbox.imported r using (workflow_id, namespace)
join outbox.import i using (import_id)
