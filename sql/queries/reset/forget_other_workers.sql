-- Delete every worker from the register except these, which continue to run. $1 bigint[]: workers
delete from outbox.worker w where w.worker_id <> all ($1::bigint[])
