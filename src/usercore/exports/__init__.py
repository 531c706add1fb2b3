"""What a person may have of theirs: all data, what for, who received it, as JSON or to be read."""
