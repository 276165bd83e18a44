-- Wake every worker that listens, as an enqueue would.
select outbox.wake()
