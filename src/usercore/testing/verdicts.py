"""How a check of the kit ends early."""


class Failed(AssertionError):
    """A check did not pass; the text says what to do. It never holds a value of a person or a setting."""


class Skipped(Exception):
    """A check that is not about this vendor; the text says why."""
