-- How many workflows an earlier rollback has yet to end; those whose end became a dead letter too, because it may be requeued.
-- $1 text: the topic of its messages
select (select count(*) from outbox.message where topic = $1) + (select count(*) from outbox.dead_letter where topic = $1)
