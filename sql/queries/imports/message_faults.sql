-- Which messages of an array enqueue_many would refuse, and why. $1 json: messages
select f.place::integer as place, f.fault
from (
    select e.place - 1 as place, outbox.fault_of_message(e.message) as fault
    from json_array_elements($1::json) with ordinality as e (message, place)
    offset 0  -- each is checked once
) f
where f.fault is not null
order by f.place
