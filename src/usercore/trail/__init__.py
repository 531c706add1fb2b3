"""The sealed audit trail: signed, chained segments, and their verification."""
