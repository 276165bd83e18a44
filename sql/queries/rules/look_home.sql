-- Pause everything if this database is a copy of the one in which the outbox lived.
select outbox.look_home()
