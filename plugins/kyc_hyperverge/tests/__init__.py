"""Tests of the HyperVerge plugin."""
