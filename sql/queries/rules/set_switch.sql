-- Set a switch for every worker, or remove it. $1 text: name · $2 jsonb: value, null to remove
select outbox.set_switch($1, $2)
