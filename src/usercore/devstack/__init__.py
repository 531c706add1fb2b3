"""The embedded stack: real servers for development, demo and tests."""
