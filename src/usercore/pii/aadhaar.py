"""Finding and masking whole Aadhaar numbers in text: nobody gave us leave to keep one."""

import re
import unicodedata
from collections.abc import Iterator

# Twelve digits, alone or in groups, not inside a longer run of digits. \d means every script's digits here, on purpose:
# a card is printed in two, and this looks for what must not be kept. The lookahead lets candidates overlap.
_GAP = r"[\s\u00a0\u2010-\u2015\u2212\-]{0,3}"
_CANDIDATE = re.compile(rf"(?<!\d)(?=(\d(?:{_GAP}\d){{11}})(?!\d))")
_DIGIT = re.compile(r"\d")
_UUID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])")

# Verhoeff (1969): multiplication in the dihedral group D5, and the permutation that is applied once per position.
_PRODUCT = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_PERMUTATION = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 5, 7, 6, 2, 8, 3, 0, 9, 4),
    (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7),
    (9, 4, 5, 3, 1, 2, 6, 8, 7, 0),
    (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5),
    (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)


def has_check_digit(digits: str) -> bool:
    """Whether the last of these ASCII digits is the Verhoeff check digit of the others."""
    state = 0
    for position, digit in enumerate(reversed(digits)):
        state = _PRODUCT[state][_PERMUTATION[position % 8][ord(digit) - 48]]
    return state == 0


def find(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of each Aadhaar number: first digit 2-9, Verhoeff-valid. One in twelve random ones is, too.

    Not inside a UUID, whose groups are digits by chance: an id that was masked would name nothing any more.
    """
    ids: list[tuple[int, int]] | None = None
    for match in _CANDIDATE.finditer(text):
        digits = "".join(str(unicodedata.digit(digit)) for digit in _DIGIT.findall(match[1]))
        if digits[0] in "01" or not has_check_digit(digits):
            continue
        if ids is None:
            ids = [found.span() for found in _UUID.finditer(text)]
        start, end = match.span(1)
        if not any(first <= start and end <= last for first, last in ids):
            yield start, end


def contains(text: str) -> bool:
    return next(find(text), None) is not None


def mask(text: str) -> str:
    """With the first eight digits of each number as X; everything else stays, separators too."""
    characters = list(text)
    for start, end in find(text):
        digits = [place for place in range(start, end) if _DIGIT.fullmatch(text, place, place + 1)]
        for place in digits[:8]:
            characters[place] = "X"
    return "".join(characters)
