"""A Temporal frontend that answers at once, to measure the relay alone."""
