"""Personal data: what counts as it, how it is sealed, opened, masked, searched and checked."""
