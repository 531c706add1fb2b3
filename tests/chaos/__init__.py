"""Crashes, outages and races, with the real programs on real servers."""
