"""Zyx: a person all of whose values are unmistakable, and every wrong way to say them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from tests.canary import Canary, Finding, Searcher

V: Mapping[str, str] = {
    # What a profile holds.
    "first_name": "Zyxwanthia",
    "first_name of another script": "क्षत्रज्ञेश्वरी",
    "last_name": "Qvortlekumar",
    "date_of_birth": "1951-11-29",
    "pan_number": "ZQXPV7391K",
    "aadhaar_last4": "8362",
    "phone": "7391846205",
    "email": "Zyx.Wanthia+q7@leak-probe.example",
    "avatar_url": "https://avatars.leak-probe.example/zyx?portrait=7f3&size=9",
    "line1": "17/B Zebranthium Quay",
    "line2": "Flat Vexillology 9, “East” & co",
    "city": "Quxhampton",
    "state": "Wyrdmarch",
    "pin_code": "739158",
    # What else a person, a browser or Auth says.
    "address of the caller": "203.0.113.77",
    "deactivation reason": "reported by Zyx's sister: stolen handset vq81",
    "name in the token": "Zyxa Tokenclaimsworth",
    "user agent": "ZyxBrowser/9.71 (leakprobe; q)",
    "cookie": "zyxsession-5b1f",
    "referer": "https://zyx-referrer.example/came?from=here",
    "forwarded": "zyx-proxy-hop.example",
    "baggage": "zyx-baggage-77",
    "request id": "zyx request id, 9 of 9",
    "traceparent": "00-zyxtrace-77",
    "entity tag": "zyx-entity-tag-31",
    "query": "zyx-query-value-5x",
    "query name": "zyxqueryname81",
    "cursor": "zyx-cursor-opaque-12",
    "path": "zyx-path-segment-66",
    "media type": "application/zyx-media",
    "idempotency key": "zyx-idempotency:44@leak",
    "bad idempotency key": "zyx idempotency näme",
    "bad token": "zyx.bad.token-2718",
    "raw request": "ZYX-RAW-REQUEST-LINE",
    "unfinished body": "zyx-unfinished-body-19",
    # Values that are refused.
    "unknown field": "zyx_unknown_field_name",
    "unknown value": "zyx value of an unknown field",
    "wrong type": "zyx <wrong> type, 81@",
    "malformed": "zyx-malformed-json-404",
    "too large": "zyx-too-large-body-413",
    "bad first_name": "Zyxbad7name9!",
    "bad last_name": "9Zyxlast{bad}",
    "bad date_of_birth": "1951-13-77",
    "bad pan_number": "ZYXBADPAN77X",
    "bad aadhaar_last4": "zyx83621",
    "bad phone": "+91739184zyx5",
    "bad avatar_url": "http://insecure.zyx.example/a",
    "bad pin_code": "zyx739158",
    "bad country": "Zyxlandia",
    "whole Aadhaar": "2991 3847 5627",
    "bad consent_type": "zyx_consent_type",
    "bad version": "zyx version of 1 text",
    "refused avatar_url": "https://avatars.leak-probe.example/refused-by-the-database",
    "changed email": "changed.zyx.probe@leak-probe.example",
    # What a verification deals with.
    "Aadhaar that a vendor sends": "740552648362",
    "another pan_number": "ZQYPV7392K",
    "account number": "73918462051793",
    "ifsc": "ZQXV0739158",
    "bad account number": "zyx-account-7391846",
    "bad ifsc": "zyxifsc-00917",
    "name on a card": "Wxyzanthe Cardholderovitch",
    "reason of a vendor": "zyx reason: smudged hologram 7q",
    "note of a reviewer": "zyx note: called her brother at the quay, vq82",
    "e-mail of a reviewer": "reviewer.zyx@leak-probe.example",
    # Events that are poison.
    "poison text": "zyx-poison-not-json",
    "poison email": "zyx poison without at sign",
    "poison id": "zyx-poison-no-uuid",
    "poison header": "zyx-poison-header-value",
    "poison key": "zyx-poison-key",
    "event field": "zyx-event-unknown-field",
}
CANARIES = [Canary(name, value) for name, value in V.items()]

ADDRESS = {part: V[part] for part in ("line1", "line2", "city", "state", "pin_code")}
PROFILE: dict[str, Any] = {
    **{name: V[name] for name in ("first_name", "last_name", "date_of_birth", "pan_number", "aadhaar_last4")},
    "phone": f"+91{V['phone']}",
    "avatar_url": V["avatar_url"],
    "address": {**ADDRESS, "country": "IN"},
}
BAD = {name.removeprefix("bad "): V[name] for name in V if name.startswith("bad ")}

AMBIENT = {
    "User-Agent": V["user agent"],
    "Cookie": f"sid={V['cookie']}",
    "Referer": V["referer"],
    "Forwarded": f"for={V['forwarded']}",
    "X-Forwarded-For": f"{V['forwarded']}, {V['address of the caller']}",
    "Baggage": f"email={V['baggage']}",
    "Tracestate": f"zyx={V['baggage']}",
    "Traceparent": V["traceparent"],
    "X-Request-ID": V["request id"],
    "If-None-Match": f'"{V["entity tag"]}"',
}


SEARCHER = Searcher(CANARIES)

# Contract and design: where a value may stand in clear. Everything else is a leak.
ALLOWED = [
    ("email|changed email", r"postgres public\.user_profiles\.email"),
    ("avatar_url|refused avatar_url", r"postgres public\.user_profiles\.avatar_url"),
    ("state", r"masked bodies (GET|POST) /internal/users/[^?]*"),  # as a mask of an address shows it
    ("address of the caller", r"masked bodies GET /internal/users/[^/]*/audit.*"),
    ("address of the caller", r"postgres public\.\w+\.ip_addr"),
    (".*", r"kafka auth\.[a-z.]+\.v1 .*"),
    (".*", r"kafka usercore\.dlq\.v1 .* (key|value|header (?!dlq_).*)"),
]


def leaks(findings: list[Finding]) -> list[Finding]:
    return [
        finding
        for finding in findings
        if not any(
            re.fullmatch(f"({who}) in ({where})", f"{finding.canary} in {finding.place}") for who, where in ALLOWED
        )
    ]


def bad_bodies(example: dict[str, Any]) -> Iterator[bytes]:
    """Everything that a body can be instead of what is wanted, with a value in it to be found again."""
    text = msgspec.json.encode(V["malformed"])
    yield b""
    yield text
    yield text[:-1]
    yield b'{"first_name": ' + text
    yield b"[" * 5000 + text
    yield V["malformed"].encode("utf-16")
    yield b'"\xff' + text[1:]
    yield b'{"first_name": "' + V["malformed"].encode() + b'\\ud800"}'
    yield b'{"first_name": "' + V["malformed"].encode() + b'\\u0000"}'
    yield b'{"first_name": "' + V["too large"].encode() * 5000 + b'"}'
    yield msgspec.json.encode({**example, V["unknown field"]: V["unknown value"]})
    yield msgspec.json.encode({V["unknown value"]: {V["unknown field"]: PROFILE}})
    yield msgspec.json.encode([example, PROFILE])
    wrong = V["wrong type"]
    for name in example:
        for value in (wrong, [wrong], {wrong: wrong}, 10**30, BAD.get(name, wrong), f"\0{wrong}"):
            yield msgspec.json.encode({**example, name: value})
    for name, value in BAD.items():
        yield msgspec.json.encode({name: value})
        yield msgspec.json.encode({"address": {**ADDRESS, name: value}})
    yield msgspec.json.encode(BAD | {"address": BAD})
