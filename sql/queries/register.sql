-- Enter a worker process in the register. $1 text: name · $2 text: version · $3 jsonb: detail
insert into outbox.worker (name, version, detail) values ($1, $2, $3) returning worker_id
