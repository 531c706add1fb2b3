"""The keyring's life for operators: what there is, rotating, moving to another KMS key, retiring."""
