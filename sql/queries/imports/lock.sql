-- Have others who move rows of this import, or take them back, wait until this transaction ends. $1 bigint: import
select rolling_back, rollbacks from outbox.import where import_id = $1 for update
