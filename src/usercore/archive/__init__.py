"""The archive of the audit trail in ClickHouse: shipped, read, compared, and what may leave PostgreSQL for it."""
