-- Enqueue a JSON array of messages in one transaction and return their ids in its order. $1 json: messages
select * from outbox.enqueue_many($1)
