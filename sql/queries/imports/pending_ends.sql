-- How many workflows an earlier rollback has yet to end. Ends that became dead letters count, because they may be put back.
-- $1 text: the topic of its messages
select (select count(*) from outbox.message where topic = $1) + (select count(*) from outbox.dead_letter where topic = $1)
