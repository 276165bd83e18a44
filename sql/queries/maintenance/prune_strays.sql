-- Delete old history that no daily partition took. Returns how many. $1 timestamptz: settled before · $2 bigint: limit
select outbox.delete_stray_history($1, $2)
