"""Webhooks of vendors: received and verified in one place, applied in another."""
