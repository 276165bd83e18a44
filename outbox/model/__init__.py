"""What everything else speaks of: the message, the sink's protocol, events, findings, errors. No I/O."""
