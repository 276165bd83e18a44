-- How many dead letters there are of each reason and kind of last error, the most first.
--
-- $1 text: topic, exact or prefix.* · $2 text: kind of the last error · $3 text: reason · $4 text: key · $5 float: dead for more than
-- so many seconds · $6 float: dead for less · $7 uuid[]: messages. Null matches all.
select
    d.reason,
    d.errors -> -1 ->> 'kind' as kind,
    count(*) as messages,
    min(d.died_at) as oldest,
    max(d.died_at) as newest,
    max(d.errors -> -1 ->> 'detail') as example
from outbox.dead_letters($1, $2, $3, $4, make_interval(secs => $5), make_interval(secs => $6), $7) d
group by 1, 2
order by messages desc, 1, 2
