"""Tests of Signzy's plugin and its sandbox."""
