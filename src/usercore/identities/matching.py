"""Is it the same person? What a vendor read off documents against what a profile says: pure."""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Literal

from rapidfuzz import fuzz

from usercore.plugins import Identity

Conflict = Literal["identity_mismatch", "identity_conflict"]

NAME_SIMILARITY = 85.0
"""Of 100, over words in any order. A middle initial costs about 10, another first or family name 30 and more."""


def mismatches(profile: Mapping[str, str | None], identity: Identity) -> bool:
    """Whether something that both know differs. `profile` has the profile's members as text; dates are ISO 8601."""
    pan, born = profile.get("pan_number"), profile.get("date_of_birth")
    if pan is not None and identity.pan_number is not None and pan != identity.pan_number:
        return True
    if born is not None and identity.date_of_birth is not None and date.fromisoformat(born) != identity.date_of_birth:
        return True
    digits = profile.get("aadhaar_last4")
    if digits is not None and identity.aadhaar_last4 is not None and digits != identity.aadhaar_last4:
        return True
    name = " ".join(part for part in (profile.get("first_name"), profile.get("last_name")) if part)
    return bool(name) and identity.name is not None and similarity(name, identity.name) < NAME_SIMILARITY


def similarity(one: str, other: str) -> float:
    """0 to 100. Case, accents, punctuation and the order of words do not count; nor do titles."""
    return fuzz.token_sort_ratio(_plain(one), _plain(other))


_TITLES = frozenset(("mr", "mrs", "ms", "shri", "smt", "kumari", "dr"))


def _plain(name: str) -> str:
    decomposed = unicodedata.normalize("NFKD", name.casefold())
    letters = "".join(each for each in decomposed if unicodedata.category(each) != "Mn")
    words = re.sub(r"[^\w\s]", " ", letters).split()
    return " ".join(word for word in words if word not in _TITLES) or " ".join(words)
