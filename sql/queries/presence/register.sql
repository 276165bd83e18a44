-- Enter a worker process in the register, or return nothing if another worker has the number that was drawn, because a restore left the
-- sequence behind. Then draw again. $1 text: name · $2 text: version · $3 jsonb: detail
insert into outbox.worker (name, version, detail) values ($1, $2, $3)
on conflict do nothing
returning worker_id, outbox.note_uptime()
