"""Disclosures: who received which personal data of whom, and for what."""
