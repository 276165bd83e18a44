"""The application's database: tenants kept apart, steps taken once, events captured."""
