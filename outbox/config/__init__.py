"""Settings: read from the environment, checked, reported with their origin."""
