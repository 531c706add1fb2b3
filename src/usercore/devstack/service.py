"""A process of the embedded stack that is our own."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Service(NamedTuple):
    """One of our own processes."""

    name: str
    what: str
    command: Sequence[str]
    """`{NAME}` stands for the setting of that name."""
    ports: Mapping[str, int | None]
    """The ports that it gets, by the setting that carries each; a preferred number or None."""
    probe: tuple[str, str]
    """It is ready when (setting of the port, path) answers 200."""
