-- Notify whoever listens for wake-ups, without any message behind it: proves that notifications arrive.
select outbox.probe()
