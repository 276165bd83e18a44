-- Record rows as moved.
-- $1 bigint: import · $2 text[]: identities · $3 uuid[]: messages · $4 text[]: namespaces · $5 text[]: workflow ids · $6 text[]: workflow
-- types
insert into outbox.imported (import_id, identity, message_id, namespace, workflow_id, workflow)
select $1::bigint, n.* from unnest($2::text[], $3::uuid[], $4::text[], $5::text[], $6::text[]) as n
