"""The workflow families that come along, their client and their worker."""
