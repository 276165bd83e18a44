"""Tenants: creating one as a whole or not at all, suspending and reactivating it, deleting it."""
