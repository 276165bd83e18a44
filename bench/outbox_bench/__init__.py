"""Measurements of the relay, each a module with a command line of its own."""
