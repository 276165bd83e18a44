"""The edge to PostgreSQL: connections, pools, the driver's errors. asyncpg is imported here only."""
