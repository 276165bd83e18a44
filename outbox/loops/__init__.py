"""The life of a loop: backing off, trying again, being watched, being cancelled, stopping on signals."""
