-- Drop the history that is older than its retention, unless another worker does so now. Returns what was dropped.
--
-- It has a transaction of its own. It needs stronger locks than creating partitions does, and to raise a lock for which settles wait
-- could end in a deadlock. And a long reader in its way must not stop the creation of tomorrow's partition. $1 int: days to keep
with mine as materialized (
    select outbox.change_alone(wait => false) as lock
)
select 'dropped' as what, part as name from mine, lateral outbox.drop_history_partitions($1) as part where lock
