"""The audit trail: audited reads and partitions."""
