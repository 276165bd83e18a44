-- End a pause; return whether there was one. $1 text: topic · $2 text: key
select outbox.resume($1, $2)
