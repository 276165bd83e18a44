-- Whether the register still has this lock for a worker. $1 bigint: worker · $2 bigint: its lock
select exists (select from outbox.worker w where w.worker_id = $1 and w.presence = $2)
