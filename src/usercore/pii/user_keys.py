"""Rows of whatever table that bring their user's wrapped keys along."""

from typing import Protocol
from uuid import UUID

from usercore.pii.classification import RetentionClass
from usercore.pii.wraps import UserKeyRow


class WithKeys(Protocol):
    """A row that brings its user's wrapped keys along, as four parallel lists."""

    @property
    def key_classes(self) -> list[RetentionClass] | None: ...
    @property
    def key_versions(self) -> list[int] | None: ...
    @property
    def key_epochs(self) -> list[int] | None: ...
    @property
    def key_wraps(self) -> list[bytes] | None: ...


def key_rows(user_id: UUID, row: WithKeys) -> list[UserKeyRow]:
    if row.key_classes is None or row.key_versions is None or row.key_epochs is None or row.key_wraps is None:
        return []
    keys = zip(row.key_classes, row.key_versions, row.key_epochs, row.key_wraps, strict=True)
    return [UserKeyRow(user_id, *key) for key in keys]
