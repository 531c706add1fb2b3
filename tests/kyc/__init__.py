"""KYC through the service, with the vendors' sandboxes."""
