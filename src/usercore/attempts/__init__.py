"""Calls to vendors: starting attempts, asking for results, giving up."""
