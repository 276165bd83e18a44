-- Record that a worker lives and what it does. $1 bigint: worker · $2 text: state · $3 jsonb: detail
--
-- A worker that has stopped and holds nothing needs no rescue.
with uptime as (
    select outbox.note_uptime()
)
update outbox.worker
set seen_at = now(), state = $2, detail = detail || $3, stopped_at = case when $2 = 'stopped' then now() end,
    presence = case when $2 <> 'stopped' or ($3 ->> 'outstanding')::int > 0 then presence end
where worker_id = $1 and exists (select from uptime)
