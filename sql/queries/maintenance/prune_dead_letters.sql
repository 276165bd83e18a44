-- Delete old dead letters, but those that somebody is putting back right now. Returns how many. $1 timestamptz: died before · $2 int: limit
with pruned as (
    delete from outbox.dead_letter d
    where d.message_id = any (array(
        select o.message_id from outbox.dead_letter o
        where o.died_at < $1 order by o.died_at limit $2 for update skip locked))
    returning d.message_id
)
select count(*) from pruned
