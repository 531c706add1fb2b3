"""Brings a database to the schema of this version: apply, plan, pending, rollback, new."""

from usercore.migrate.files import MigrationError, expected_head, manifest_problems, new, write_manifest
from usercore.migrate.planning import PlannedMigration, plan
from usercore.migrate.runner import apply, pending, rollback
from usercore.migrate.store import applied_head

__all__ = [
    "MigrationError",
    "PlannedMigration",
    "applied_head",
    "apply",
    "expected_head",
    "manifest_problems",
    "new",
    "pending",
    "plan",
    "rollback",
    "write_manifest",
]
