"""Everything Temporal: the adapter between the relay and a Temporal server, and what runs on one."""
