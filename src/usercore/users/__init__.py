"""Users: creation, and the row that every change locks first."""
