"""What time does to KYC: cases that nobody finishes, verifications whose validity ends."""
