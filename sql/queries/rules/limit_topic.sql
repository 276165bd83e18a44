-- Bound the claims of a topic; return whether they were bounded before. $1 text: topic · $2 float: messages a second, null to lift · $3 int: burst, null for one second's worth
select outbox.limit_topic($1, $2, $3)
