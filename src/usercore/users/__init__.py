"""Users: profile, status, creation."""
