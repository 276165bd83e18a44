"""`outbox demo`: the main job on real servers, and the count by Temporal's own list at the end."""
