-- Drop the history that is beyond retention, unless another worker is at it right now. Returns what was dropped.
--
-- A transaction of its own: this needs stronger locks than making partitions does, and raising a lock that settles wait for could end in
-- a deadlock; and a long reader that is in its way must not keep tomorrow's partition from being made. $1 int: days to keep
with mine as materialized (
    select outbox.change_alone(wait => false) as lock
)
select 'dropped' as what, part as name from mine, lateral outbox.drop_history_partitions($1) as part where lock
