"""Verification as its user sees it: start, look, start again."""
