-- Why this database is a copy of the one in which the outbox lived; null if it is not.
select outbox.home_fault()
