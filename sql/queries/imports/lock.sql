-- Lock an import until this transaction ends: others that move its rows, or take them back, wait. $1 bigint: import
select rolling_back, rollbacks from outbox.import where import_id = $1 for update
