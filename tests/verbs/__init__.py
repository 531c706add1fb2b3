"""Every verb in the situations that matter, each with what one call of it leaves behind."""

from tests.verbs import kyc, users
from tests.verbs.world import Case, Subject, World, opened

CASES: list[Case] = [*users.CASES, *kyc.CASES]

__all__ = ["CASES", "Case", "Subject", "World", "opened"]
