-- Call messages that wait behind nobody. There should be none; returns how many there were.
select outbox.call_sleepers()
