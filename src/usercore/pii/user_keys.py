"""A user's wrapped keys: as rows of whatever table bring them along, and new ones in place of those that are lost."""

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from usercore import telemetry
from usercore.db import Conn
from usercore.pii.classification import RetentionClass
from usercore.pii.keyring import FIRST_CLASSES, Keyring, UserKeys
from usercore.pii.queries import add_user_keys
from usercore.pii.wraps import UserKeyRow

log = telemetry.logger(__name__)


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


async def replace_keys(
    tx: Conn, keyring: Keyring, keys: UserKeys, broken: Sequence[RetentionClass]
) -> list[UserKeyRow]:
    """A new version of each of these keys, or the first one of a class that a user does not begin with.

    Without it a user whose key is damaged could not even replace what nobody can read any more.
    """
    fresh: list[UserKeyRow] = []
    for retention in broken:
        newest = keys.newest_version(retention)
        if newest == 0 and retention not in FIRST_CLASSES:
            version = 1
        else:
            # Never 1 again: the first key was that, and may come back from a backup.
            version = max(newest, 1) + 1
            log.error("user_key_replaced", user_id=keys.user_id, retention_class=retention)
        fresh += keyring.new_user_keys(keys.user_id, (retention,), version=version)
    await add_user_keys(tx, keys=fresh)
    return fresh
