"""`outbox audit`: holds the outbox's history against Temporal, and explains each difference."""
