"""Reviews: what an admin sees of KYC cases and decides."""
