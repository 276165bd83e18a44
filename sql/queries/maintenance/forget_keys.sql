-- Delete dedup keys after the end of their window, at most $1; returns how many. $1 int: limit
with forgotten as (
    delete from outbox.delivered_key d
    where d.dedup_key = any (array(select o.dedup_key from outbox.delivered_key o where o.until < now() order by o.until limit $1 for update skip locked))
    returning d.dedup_key
)
select count(*) from forgotten
