"""The account's lifecycle: holds and the status they derive."""
