"""All SQL that this package runs on an outbox, and the migrations that make one."""
