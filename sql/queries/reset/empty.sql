-- Empty every table of the outbox, except the registers of migrations, workers, crashes and home, and the owner's retention. A test checks
-- that the list is complete.
truncate
    outbox.message, outbox.history, outbox.dead_letter, outbox.delivered_key,
    outbox.pause, outbox.topic_limit, outbox.ended_rule, outbox.control, outbox.import, outbox.imported
restart identity
