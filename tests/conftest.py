"""Fixtures of every test: real servers, migrated databases."""

pytest_plugins = ["tests.servers", "tests.databases", "tests.service"]
