-- Empty every table of the outbox but the registers of migrations, of workers, of crashes and of its home, and the days that the owner keeps. A test
-- holds the list complete.
truncate
    outbox.message, outbox.history, outbox.dead_letter, outbox.delivered_key,
    outbox.pause, outbox.topic_limit, outbox.ended_rule, outbox.control, outbox.import, outbox.imported
restart identity
