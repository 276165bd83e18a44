-- Have nobody move rows of an import from now on. $1 bigint: import
update outbox.import set rolling_back = true where import_id = $1
