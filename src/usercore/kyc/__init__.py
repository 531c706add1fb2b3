"""KYC: what becomes of evidence. Cases, checks, tiers."""
