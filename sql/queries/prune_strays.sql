-- Delete old history that no daily partition took. Returns how many. $1 timestamptz: settled before · $2 int: limit
with pruned as (
    delete from outbox.history_default h
    where h.ctid = any (array(
        select o.ctid from outbox.history_default o where o.settled_at < $1 limit $2 for update skip locked))
    returning h.seq
)
select count(*) from pruned
