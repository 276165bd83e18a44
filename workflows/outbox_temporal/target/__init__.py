"""What a message asks of Temporal: its own target, or the one that a route gives it."""
