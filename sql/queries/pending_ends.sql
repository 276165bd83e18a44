-- How many workflows an earlier rollback has yet to end. $1 text: the topic of its messages
select count(*) from outbox.message where topic = $1
