"""The business data that the workflows' activities work on: a schema of its own, apart from the outbox's."""
