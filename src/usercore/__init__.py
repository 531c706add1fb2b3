"""The user service: sealed profiles, consents, lifecycle, audit and events."""
