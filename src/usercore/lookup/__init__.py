"""Finding users."""
