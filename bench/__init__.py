"""Benchmarks: `python -m bench [NAME …]` compares alternatives within one run and prints ratios."""
