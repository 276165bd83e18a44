-- Have this database be the outbox, and no copy; return whether it was one.
select outbox.adopt()
