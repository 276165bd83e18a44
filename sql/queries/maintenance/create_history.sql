-- Create the partitions of history for the next days, unless another worker does so now. Returns what was made. $1 int: days ahead
with mine as materialized (
    select outbox.change_alone(wait => false) as lock
)
select 'created' as what, part as name from mine, lateral outbox.create_history_partitions($1) as part where lock
