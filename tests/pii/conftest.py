"""Settings of the property tests."""

from hypothesis import settings

# A busy machine is no failure: what is slow shows in the benchmarks.
settings.register_profile("usercore", deadline=None)
settings.load_profile("usercore")
