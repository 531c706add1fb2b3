"""The host of KYC plugins."""
