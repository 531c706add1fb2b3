"""Documents and pictures that vendors keep for a while, fetched, sealed and stored."""
