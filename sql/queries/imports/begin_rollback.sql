-- Stop an import from moving rows from now on, and return the number of this rollback. $1 bigint: import
update outbox.import set rolling_back = true, rollbacks = rollbacks + 1 where import_id = $1
returning rollbacks
