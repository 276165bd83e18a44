"""`outbox dead`: look at dead letters, requeue or discard them."""
