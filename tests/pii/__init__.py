"""Personal data: ciphers, keys, masks, validators, and the registry against the database."""
