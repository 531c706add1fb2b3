"""An export: its shape, and as a page that a person can read: one file, no scripts, nothing from elsewhere."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from datetime import datetime
from html import escape
from typing import Literal

from msgspec import Struct
from msgspec.structs import asdict

from usercore.accounts.actions import Access
from usercore.consents.actions import Consent
from usercore.events import KycStatus, KycTier
from usercore.exports.queries import Document, Recipient
from usercore.pii.classification import RetentionClass
from usercore.pii.validators import INDIA
from usercore.prefs.actions import StoredPrefs
from usercore.profiles.actions import Me
from usercore.verification.actions import CheckView

SCHEMA: Literal["usercore-export-1"] = "usercore-export-1"


class Purpose(Struct, frozen=True):
    """What a class of data is for, and how long it is kept."""

    retention_class: RetentionClass
    data: str
    purpose: str
    kept: str


PURPOSES: Sequence[Purpose] = (
    Purpose(
        "identity",
        "names, date of birth, PAN, last digits of Aadhaar, address",
        "to know who holds the account, as SEBI and the Prevention of Money Laundering Act ask",
        "while the account is open, and eight years after if verification was ever begun",
    ),
    Purpose(
        "contact",
        "phone, e-mail, picture, network addresses of requests",
        "to reach you and to protect the account",
        "while the account is open",
    ),
    Purpose(
        "kyc_evidence",
        "what verification vendors answered, documents, the bank account of a verification",
        "to prove that you were verified",
        "while the account is open, and five years after",
    ),
)


class Verification(Struct, frozen=True):
    kyc_status: KycStatus
    kyc_tier: KycTier
    verified_at: datetime | None
    checks: list[CheckView]
    documents: list[Document]


class Head(Struct, frozen=True):
    """An export but for its access log."""

    schema: Literal["usercore-export-1"]
    exported_at: datetime
    controller: str
    user: Me
    notification_prefs: StoredPrefs
    consents: list[Consent]
    verification: Verification
    purposes: Sequence[Purpose]
    recipients: list[Recipient]


class Export(Head, frozen=True):
    """The whole document: docs/export.schema.json."""

    access_log: list[Access]


STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p.lead { color: gray; margin-top: .25rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid var(--line); }
th { background: var(--soft); font-weight: 600; } td:first-child, th[scope=row] { width: 16rem; }
@media print { body { margin: 0; max-width: none; } tr { break-inside: avoid; } h2 { break-after: avoid; } }
"""


async def html(head: Head, accesses: AsyncGenerator[Sequence[Access]]) -> AsyncGenerator[bytes]:
    """In pieces; ends with a line that says so, since a page that was cut off looks whole."""
    yield "".join(_top(head)).encode()
    async for page in accesses:
        yield "".join(_row(_access(access)) for access in page).encode()
    yield b"</tbody></table><p class=lead>This is the end of your data.</p></body></html>\n"


def _top(head: Head) -> Iterator[str]:
    profile = asdict(head.user.profile)
    address = head.user.profile.address
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width"><title>Your personal data</title>'
    yield f"<style>{STYLE}</style></head><body><h1>Your personal data</h1>"
    yield f"<p class=lead>What {escape(head.controller)} has of you, as of {_at(head.exported_at)}.</p>"
    yield "<h2>You</h2>"
    lines = [] if address is None else [address.line1, address.line2, address.city, address.state, address.pin_code]
    shown = {
        **profile,
        "address": ", ".join(line for line in lines if line),
        "updated_at": head.user.profile.updated_at,
    }
    yield _pairs((_name(name), value) for name, value in shown.items())
    yield "<h2>Your account</h2>"
    verification = head.verification
    yield _pairs(
        [
            ("Account number", head.user.id),
            ("Status", head.user.status),
            ("Open since", head.user.created_at),
            ("Verification", f"{_name(verification.kyc_status)}, {_name(verification.kyc_tier)}"),
            ("Verified", verification.verified_at),
            *((f"Check: {_name(check.check)}", f"{check.status}, by {check.vendor}") for check in verification.checks),
        ]
    )
    yield "<h2>Your documents</h2>"
    yield _table(
        ("Document", "From", "Kept since", "Size"),
        (
            (_name(each.artifact_type), each.vendor, each.kept_since, f"{each.size:,} bytes, {each.media_type}")
            for each in verification.documents
        ),
    )
    yield "<h2>Notifications</h2>"
    yield _pairs((_name(name), value) for name, value in asdict(head.notification_prefs).items())
    yield "<h2>What you agreed to</h2>"
    yield _table(
        ("What", "Version", "Agreed", "Ended"),
        (
            (_name(each.consent_type), each.version, each.granted_at, each.revoked_at)
            for each in head.consents
            if each.granted
        ),
    )
    yield "<h2>What your data is for</h2>"
    yield _table(("Data", "Purpose", "Kept"), ((each.data, each.purpose, each.kept) for each in head.purposes))
    yield "<h2>Who received it</h2>"
    yield _table(
        ("Recipient", "What", "For", "Last"),
        (
            (each.recipient, ", ".join(map(_name, each.fields)), ", ".join(map(_name, each.purposes)), each.last_at)
            for each in head.recipients
        ),
    )
    yield "<h2>Who looked, newest first</h2>"
    yield f"<table><thead>{_row(('When', 'Who', 'What', 'For'), 'th')}</thead><tbody>"


def _access(access: Access) -> tuple[object, ...]:
    fields = ", ".join(map(_name, access.fields))
    return access.at, f"{access.client} ({access.actor_kind})", fields, _name(access.purpose or access.action)


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    rows = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{_shown(value)}</td></tr>" for name, value in pairs)
    return f"<table><tbody>{rows}</tbody></table>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(map(_row, rows)) or f"<tr><td colspan={len(heads)}>nothing</td></tr>"
    return f"<table><thead>{_row(heads, 'th')}</thead><tbody>{body}</tbody></table>"


def _row(cells: Sequence[object], tag: str = "td") -> str:
    return f"<tr>{''.join(f'<{tag}>{_shown(cell)}</{tag}>' for cell in cells)}</tr>"


def _shown(value: object) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _at(value) if isinstance(value, datetime) else escape(str(value))


def _at(at: datetime) -> str:
    return f"{at.astimezone(INDIA):%d %B %Y, %H:%M} IST"


NAMES = {
    "pan": "PAN",
    "pan_number": "PAN",
    "pan_card": "PAN card",
    "aadhaar_last4": "Aadhaar, last four digits",
    "avatar_url": "Picture",
    "email": "E-mail",
    "sms_enabled": "SMS enabled",
}


def _name(name: str) -> str:
    return NAMES.get(name, name.replace("_", " ").capitalize())
