-- Drop a day of the history; false if it is gone already. Fails soon where a long reader is in the way.
-- $1 text: partition · $2 timestamptz: it must have ended by then
select outbox.drop_history_partition($1, $2)
