-- What is paused now: topics (exact, or prefix.*), keys, or with neither everything.
select topic, key from outbox.pause
