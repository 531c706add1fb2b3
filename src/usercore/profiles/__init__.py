"""Profiles: sealed fields, audited reads, merge patches."""
