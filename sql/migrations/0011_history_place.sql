-- Where a delivery went, for whoever compares the history with Temporal afterwards (outbox audit). Rows from before do not know it.

alter table outbox.history add column namespace text, add column task_queue text;
comment on column outbox.history.namespace is 'Of deliveries: the namespace that the target named; null for the worker''s own, or its route''s.';
comment on column outbox.history.task_queue is 'Of deliveries: the task queue that the target named; null for the worker''s own, or its route''s.';
