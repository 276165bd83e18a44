-- Deliver nothing of a topic or of a key any more, or with neither nothing at all. $1 text: topic · $2 text: key
select outbox.pause($1, $2)
