-- Tell that a worker lives and what it does. $1 bigint: worker · $2 text: state · $3 jsonb: detail
update outbox.worker
set seen_at = now(), state = $2, detail = detail || $3, stopped_at = case when $2 = 'stopped' then now() end
where worker_id = $1
