"""Fixtures of every test: real servers, migrated databases, the running service."""

from hypothesis import settings

pytest_plugins = ["tests.servers", "tests.databases", "tests.service", "tests.stores"]

# A busy machine is no failure: what is slow shows in the benchmarks.
settings.register_profile("usercore", deadline=None)
settings.load_profile("usercore")
