"""What authors of KYC plugins test with: the base of sandboxes, and the way to one without the host."""
