"""Vendors that break a promise fail the check of it, and the sample vendor fails none."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kit import broken
from tests.kit.broken import caught, vendor
from usercore.plugins import VendorProtocolError, VendorRejected, VendorSpec, VendorUnavailable
from usercore.testing.acme.sandbox import AcmeSandbox
from usercore.testing.checks import CHECKS
from usercore.testing.kit import Subject, examine, in_process
from usercore.testing.sandbox import Sandbox

FIELDS = frozenset(("first_name", "last_name", "date_of_birth", "pan_number"))

BROKEN: list[tuple[str, VendorSpec[Any], str]] = [
    ("another version of the API", vendor(api_version=2), "spec_is_valid"),
    ("a name with a hyphen", vendor(name="acme-kyc"), "spec_is_valid"),
    ("no checks", vendor(checks=frozenset()), "spec_is_valid"),
    ("no title", vendor(title=" "), "spec_is_valid"),
    ("no sandbox", vendor(sandbox=None), "spec_is_valid"),
    ("a sandbox that is nowhere", vendor(sandbox="kyc_nowhere"), "spec_is_valid"),
    ("a setting without a text form", vendor(settings=broken.UnreadSettings), "settings_come_from_the_environment"),
    (
        "a setting of the service",
        vendor(name="kyc", settings=broken.Clashing),
        "settings_come_from_the_environment",
    ),
    ("settings that show the key", vendor(settings=broken.ShowingSettings), "secrets_are_never_shown"),
    ("a vendor that shows the key", vendor(broken.Showing), "secrets_are_never_shown"),
    ("no methods", vendor(broken.Methodless), "vendor_has_its_methods"),
    ("an operation without a method", vendor(operations=frozenset(("erase",))), "vendor_has_its_methods"),
    ("a coroutine that reads webhooks", vendor(broken.Waiting), "vendor_has_its_methods"),
    ("no reference", vendor(broken.NoReference), "start_gives_a_reference"),
    ("no way on", vendor(broken.DeadEnd), "start_gives_a_reference"),
    ("an address of its own", vendor(broken.Calling), "start_gives_a_reference"),
    ("one start an attempt", vendor(broken.Once), "start_can_be_repeated"),
    ("ids of its own", vendor(broken.OwnIds), "attempt_id_is_passed_on"),
    ("a callback address without its token", vendor(broken.OwnCallback), "callback_url_is_passed_on"),
    ("a field that is not disclosed", vendor(discloses=FIELDS - {"pan_number"}), "undisclosed_fields_are_not_sent"),
    ("a field that is not sent", vendor(discloses=FIELDS | {"email"}), "disclosed_fields_are_sent"),
    ("every field taken for given", vendor(broken.Needy), "missing_fields_do_no_harm"),
    ("the person in self", vendor(broken.Mixing), "starts_at_once_do_not_mix"),
    ("cases in self", vendor(broken.Remembering), "vendor_keeps_no_state"),
    ("CancelledError swallowed", vendor(broken.Uncancellable), "start_can_be_cancelled"),
    ("a task left behind", vendor(broken.Leaking), "start_can_be_cancelled"),
    ("a verdict before the end", vendor(broken.Hasty), "unfinished_is_pending"),
    ("no approval", vendor(broken.Deaf), "approval_is_approved"),
    ("no checks in evidence", vendor(broken.Unchecked), "approval_is_approved"),
    ("declined taken for approved", vendor(broken.Lenient), "decline_is_rejected"),
    ("rejected without a code", vendor(broken.Wordless), "decline_is_rejected"),
    ("review taken for approved", vendor(broken.Trusting), "review_is_review"),
    ("leaving taken for rejected", vendor(broken.Unforgiving), "leaving_decides_nothing"),
    ("reviewers not known", vendor(broken.Unreviewed), "manual_decisions_count"),
    ("unknown taken for approved", vendor(broken.Optimistic), "unknown_status_never_approves"),
    ("the vendor's own word", vendor(broken.Repeating), "unknown_status_is_not_repeated"),
    ("other evidence each time", vendor(broken.Fickle), "fetch_can_be_repeated"),
    ("a check that does not exist", vendor(broken.Untyped), "results_have_the_declared_types"),
    ("a dictionary for evidence", vendor(broken.Guessing), "approval_is_approved"),
    ("a time without a zone", vendor(broken.Zoneless), "times_have_zones"),
    ("a whole Aadhaar number", vendor(broken.Whole), "whole_aadhaar_numbers_stay_inside"),
    ("no message read", vendor(broken.Illiterate), "messages_are_read"),
    ("events about nobody", vendor(broken.Nameless), "messages_name_their_case"),
    ("events about another case", vendor(broken.Confused), "messages_name_their_case"),
    ("reading by the clock", vendor(broken.Impure), "reading_is_pure"),
    ("reading that takes its time", vendor(broken.Slow), "reading_is_quick"),
    ("KeyError for garbage", vendor(broken.Credulous), "garbage_is_refused"),
    ("garbage read", vendor(broken.Patient), "garbage_is_refused"),
    ("messages of whatever types", vendor(broken.Loose), "changed_messages_are_refused_or_read"),
    ("an id for each reading", vendor(broken.NewIds), "event_ids_tell_messages_apart"),
    ("one id for all messages", vendor(broken.SameIds), "event_ids_tell_messages_apart"),
    ("another header than the sandbox", vendor(webhook_header="x-acme-secret"), "messages_authenticate"),
    ("an unknown message taken for approved", vendor(broken.Hopeful), "unknown_message_never_approves"),
    ("401 taken for a rejection", vendor(broken.Unauthorized), "refused_credentials_are_auth_errors"),
    (
        "down taken for a rejection",
        vendor(caught(VendorUnavailable, lambda _: VendorRejected())),
        "outages_are_vendor_errors",
    ),
    (
        "down as an OSError",
        vendor(caught(VendorUnavailable, lambda _: OSError())),
        "outages_are_vendor_errors",
    ),
    ("slow taken for processing", vendor(broken.Impatient), "slow_vendors_are_vendor_errors"),
    (
        "strange taken for a rejection",
        vendor(caught(VendorProtocolError, lambda _: VendorRejected())),
        "strange_answers_are_vendor_errors",
    ),
    ("AttributeError for another type", vendor(broken.Unreadable), "wrong_types_are_vendor_errors"),
    ("KeyError from erase", vendor(broken.Unerasable, operations=frozenset(("erase",))), "erasing_can_be_repeated"),
    ("a name in the log", vendor(broken.Talkative), "logs_carry_no_values"),
    ("a PAN on stdout", vendor(broken.Printing), "logs_carry_no_values"),
    ("a name in a note", vendor(broken.Explaining), "errors_carry_no_values"),
    ("the message in the cause", vendor(broken.Chaining), "errors_carry_no_values"),
]
"""What is wrong, the vendor, and the check that has to fail."""


async def verdict(spec: VendorSpec[Any], check: str, sandbox: type[Sandbox] = AcmeSandbox) -> tuple[str, str]:
    (report,) = await examine(Subject(spec=spec, launch=in_process(sandbox)), [check])
    return report.verdict, report.why


@pytest.mark.parametrize(("spec", "check"), [pytest.param(spec, check, id=what) for what, spec, check in BROKEN])
async def test_broken(spec: VendorSpec[Any], check: str) -> None:
    found, why = await verdict(spec, check)
    assert found == "failed"
    assert "where everything is in order" not in why, "it says what to do"


async def test_sandbox_without_webhooks() -> None:
    found, why = await verdict(vendor(), "messages_are_read", broken.Silent)
    assert (found, why.split(":")[0]) == (
        "failed",
        "the sandbox sent 0 webhooks that name the case, and 1 should have come",
    )


async def test_import_that_reaches_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "import socket\nfrom usercore.testing.acme.client import Acme\n"
        "try:\n    socket.create_connection(('127.0.0.1', 9), 0.1)\nexcept OSError:\n    pass\n"
        "class Reaching(Acme):\n    pass\n"
    )
    (tmp_path / "kyc_reaching.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    factory: Callable[..., Any] = __import__("kyc_reaching").Reaching
    try:
        found, why = await verdict(vendor(factory), "import_reaches_nothing")
    finally:
        sys.modules.pop("kyc_reaching")
    assert found == "failed"
    assert why.startswith("importing kyc_reaching does socket.")


def test_each_check_is_proven_by_a_broken_vendor() -> None:
    proven = {check for _, _, check in BROKEN} | {"import_reaches_nothing"}
    assert proven == CHECKS.keys()


def test_reasons_are_sentences() -> None:
    for name, check in CHECKS.items():
        first = (check.__doc__ or "").strip().splitlines()[0]
        assert first.endswith((".", ":")), name
