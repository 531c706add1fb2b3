"""Consents: append-only grants and withdrawals."""
