-- Forget every worker but these, which run on. $1 bigint[]: workers
delete from outbox.worker w where w.worker_id <> all ($1::bigint[])
