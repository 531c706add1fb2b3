"""Why HyperVerge declined: from its words to our rejection codes. The tables here are the only ones.

HyperVerge publishes no list of reasons: what a workflow says is chosen in its dashboard, and the texts that are known
are `Aadhaar number match failed` and `Document not detected`. So words are looked for, and what has none of them is
`vendor_declined`.
"""

import re
from collections.abc import Iterable

from usercore.plugins import RejectionCode

FRAUD = re.compile(r"fraud|tamper|forge(d|ry)|deepfake|block ?list|black ?list")
"""What stands for fraud, which beats everything that HyperVerge said otherwise. Not published: chosen by us."""

REASONS: tuple[tuple[RejectionCode, re.Pattern[str]], ...] = (
    ("document_expired", re.compile(r"\bexpired\b")),
    (
        "liveness_failed",
        re.compile(r"\blive(ness|face| face)?\b|spoof|eyes ?closed|multiple ?faces|occlusion|\bhat\b|sunglasses"),
    ),
    ("face_mismatch", re.compile(r"\bface ?(mis)?match|\bfaces? (do|does|did) not match")),
    ("address_mismatch", re.compile(r"\baddress ?(do |does |did )?(not |mis)?match")),
    ("document_unreadable", re.compile(r"not detected|unreadable|not readable|\bblur|\bglare|low quality|cropped")),
    ("aadhaar_invalid", re.compile(r"\baadhaa?r\b")),
    ("identity_mismatch", re.compile(r"\b(name|dob|date of birth|identity) ?(does not |did not |mis)?match")),
    ("pan_invalid", re.compile(r"\bpan\b")),
)
"""Looked for in this order: the first that is found counts."""


def is_fraud(texts: Iterable[str]) -> bool:
    return any(FRAUD.search(_plain(text)) for text in texts)


def rejection_code(texts: Iterable[str]) -> RejectionCode:
    """Of the first text that says something; `texts` begin with the weightiest."""
    for text in texts:
        for code, pattern in REASONS:
            if pattern.search(_plain(text)):
                return code
    return "vendor_declined"


def _plain(text: str) -> str:
    return text.lower().replace("_", " ").replace("-", " ")
