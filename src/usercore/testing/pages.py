"""The hosted page of a sandbox: plain HTML that a person clicks through, without scripts and outside assets."""

from collections.abc import Mapping, Sequence
from datetime import date
from html import escape
from typing import Literal

from aiohttp import web
from msgspec import UNSET, Struct

from usercore.plugins.vendor import Address
from usercore.testing.control import Case, Reading

Field = Literal["name", "date_of_birth", "pan_number", "aadhaar_number", "address"]

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
LABELS: Mapping[Field, str] = {
    "name": "Name",
    "date_of_birth": "Date of birth",
    "pan_number": "PAN",
    "aadhaar_number": "Aadhaar number",
    "address": "Address",
}
STYLE = """
:root{color-scheme:light;--ink:#14213d;--soft:#55607a;--line:#d7dce6;--brand:#2f4fd0}
*{box-sizing:border-box}
body{margin:0;background:#eef1f7;color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
.bar{background:#fff3cd;border-bottom:1px solid #e0c968;color:#5c4700;font-size:14px;padding:8px 16px;
text-align:center}
main{background:#fff;border:1px solid var(--line);border-radius:16px;box-shadow:0 12px 32px rgba(20,33,61,.08);
margin:32px auto;max-width:480px;padding:28px}
header{align-items:baseline;display:flex;justify-content:space-between;margin-bottom:8px}
.brand{font-weight:700;letter-spacing:.01em}
.count,p,dt,.hint{color:var(--soft)}
.count,.hint{font-size:14px}
h1{font-size:24px;line-height:1.25;margin:8px 0}
ol{display:flex;gap:6px;list-style:none;margin:0 0 20px;padding:0}
ol li{background:var(--line);border-radius:3px;flex:1;height:6px;overflow:hidden;text-indent:-999em}
ol li.done{background:var(--brand)}
label{display:block;font-weight:600;margin:14px 0 4px}
input{border:1px solid #8a94ab;border-radius:8px;font:inherit;padding:10px 12px;width:100%}
.card{background:linear-gradient(135deg,#dbe6ff,#f3f6ff);border:1px solid #b9c8f2;border-radius:12px;margin:16px 0;
padding:16px}
dl{margin:0}dt{font-size:13px}dd{font-weight:600;margin:0 0 8px;overflow-wrap:anywhere}
.face{background:#dbe6ff;border:3px dashed #6f88da;border-radius:50%;height:160px;margin:20px auto;width:160px}
button{background:var(--brand);border:2px solid transparent;border-radius:10px;color:#fff;cursor:pointer;display:block;
font:inherit;font-weight:600;margin-top:12px;padding:12px;width:100%}
button:hover{filter:brightness(.93)}
button:focus-visible,input:focus-visible{outline:3px solid #f0a500;outline-offset:2px}
button.approve{background:#1a7f4b}button.decline{background:#b3261e}button.review{background:#8a5a00}
button.cancel{background:#fff;border-color:#8a94ab;color:var(--ink)}
.error{background:#fdecea;border-left:4px solid #b3261e;border-radius:4px;color:#7a1a14;padding:8px 12px}
"""
DECISIONS = (
    ("approve", "Approve"),
    ("decline", "Decline"),
    ("review", "Send to review"),
    ("cancel", "Cancel and leave"),
)


class Step(Struct, frozen=True, kw_only=True):
    """One page of the person's way. What its fields hold is what the vendor then reads."""

    title: str
    text: str
    fields: Sequence[Field] = ()
    button: str = "Continue"
    face: bool = False
    """Whether it shows where the face goes."""


def read_fields(step: Step, form: Mapping[str, object]) -> Reading:
    """What the person put into a step. Raises ValueError with a sentence for them."""
    read: dict[str, object] = {}
    for field in step.fields:
        text = str(form.get(field, "")).strip()
        if field == "address":
            continue
        if field == "date_of_birth" and text:
            try:
                read[field] = date.fromisoformat(text)
            except ValueError:
                raise ValueError("The date of birth is not a date.") from None
        else:
            read[field] = text or None
    return Reading(**read)  # pyright: ignore[reportArgumentType]  each name is one of Field, with its own type


def step_page(brand: str, steps: Sequence[Step], number: int, case: Case, error: str | None = None) -> web.Response:
    """The step with this number, from 0. Sent to its own address."""
    step = steps[number]
    parts = [_progress(number, len(steps) + 1), f"<h1>{escape(step.title)}</h1><p>{escape(step.text)}</p>"]
    if error:
        parts.append(f'<p class="error" role="alert">{escape(error)}</p>')
    parts.append('<form method="post">')
    if step.face:
        parts.append('<div class="face" role="img" aria-label="Outline of a face"></div>')
    for field in step.fields:
        value = escape(_shown(case.identity, field))
        if field == "address":
            parts.append(f'<div class="card"><dl><dt>{LABELS[field]}</dt><dd>{value or "not readable"}</dd></dl></div>')
        else:
            kind = "date" if field == "date_of_birth" else "text"
            parts.append(
                f'<label for="{field}">{LABELS[field]}</label>'
                f'<input id="{field}" name="{field}" type="{kind}" value="{value}" autocomplete="off" maxlength="200">'
            )
    if step.fields:
        parts.append('<p class="hint">This is what the sandbox reads off the document. Empty means unreadable.</p>')
    parts.append(f"<button>{escape(step.button)}</button></form>")
    return page(brand, step.title, "".join(parts))


def review_page(brand: str, steps: Sequence[Step], case: Case) -> web.Response:
    """The last page: what was read, and how it shall end."""
    read = {field for step in steps for field in step.fields}
    rows = "".join(
        f"<dt>{LABELS[field]}</dt><dd>{escape(_shown(case.identity, field)) or 'not readable'}</dd>"
        for field in LABELS
        if field in read
    )
    buttons = "".join(
        f'<button name="outcome" value="{value}" class="{value}">{label}</button>' for value, label in DECISIONS
    )
    return page(
        brand,
        "Finish",
        _progress(len(steps), len(steps) + 1)
        + "<h1>Finish</h1><p>The vendor would decide now. In the sandbox you decide for it.</p>"
        + (f'<div class="card"><dl>{rows}</dl></div>' if rows else "")
        + f'<form method="post">{buttons}</form>',
    )


def closed_page(brand: str, text: str) -> web.Response:
    """The end, when there is nowhere to go back to."""
    return page(brand, "You may close this page", f"<h1>You may close this page</h1><p>{escape(text)}</p>")


def finished_page(brand: str, again: str | None) -> web.Response:
    """A link that was used. `again` is where it starts anew, with vendors that let it."""
    text = "<h1>This verification is finished</h1><p>Nothing more has to be done here.</p>"
    if again is not None:
        text += f'<form method="get" action="{escape(again)}"><button class="cancel">Open it again</button></form>'
    return page(brand, "Finished", text)


def missing_page(brand: str) -> web.Response:
    """A link that is not one, or not any more."""
    return page(brand, "Not found", "<h1>This link does not exist</h1><p>It may have expired.</p>", status=404)


def page(brand: str, title: str, body: str, status: int = 200) -> web.Response:
    """A page around `body`, which is HTML."""
    return web.Response(
        status=status,
        headers=HEADERS,
        content_type="text/html",
        charset="utf-8",
        text=f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · {escape(brand)} '
        '(sandbox)</title><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<style>{STYLE}</style></head><body><div class="bar">Sandbox: nothing here is real, and no vendor is asked.'
        f'</div><main><header><span class="brand">{escape(brand)}</span><span class="count">Sandbox</span></header>'
        f"{body}</main></body></html>",
    )


def _progress(number: int, count: int) -> str:
    items = "".join(f'<li class="{"done" if index <= number else ""}">Step {index + 1}</li>' for index in range(count))
    return f'<p class="count">Step {number + 1} of {count}</p><ol aria-hidden="true">{items}</ol>'


def _shown(identity: Reading, field: Field) -> str:
    value: object = identity.whole_name() if field == "name" else getattr(identity, field)
    if value is UNSET or value is None:
        return ""
    if isinstance(value, Address):
        parts = (value.line1, value.line2, value.city, value.state, value.pin_code, value.country)
        return ", ".join(part for part in parts if part)
    return str(value)
