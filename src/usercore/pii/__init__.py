"""Field-level encryption of personal data: ciphers, keyring, classification, validators."""
