-- Call messages that wait behind nothing, of a bounded number of keys. There should be none. Returns how many there were, and after which
-- key to go on; null at the end. $1 text: after which key to begin
select called, last from outbox.call_sleepers($1)
