"""The mapping's tables: signatures, bank accounts, addresses, dates, numbers, errors."""

import json
from datetime import UTC, date, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kyc_signzy import mapping, reading, refusals

from usercore.plugins import (
    Address,
    Artifact,
    Check,
    Evidence,
    Identity,
    RejectionCode,
    Response,
    Standing,
    VendorAuthError,
    VendorProtocolError,
    VendorUnavailable,
)

BOTH: frozenset[Check] = frozenset(("aadhaar", "address"))
SPLIT = {
    "district": ["BALLIA"],
    "state": [["UTTAR PRADESH", "UP"]],
    "city": ["LOOHAR"],
    "pincode": "221717",
    "country": ["IN", "IND", "INDIA"],
    "addressLine": "S/O Ram Kumar, 14 Main Road",
}
DETAILS: dict[str, Any] = {
    "name": "Ravi Kumar",
    "uid": "xxxxxxxx3445",
    "dob": "31/01/1990",
    "gender": "MALE",
    "address": "S/O Ram Kumar, 14 Main Road, Loohar, Ballia, Uttar Pradesh, 221717",
    "photo": "https://persist.signzy.tech/photo",
    "splitAddress": SPLIT,
    "x509Data": {"subjectName": "DS X", "certificate": "", "details": {}, "validAadhaarDSC": "yes"},
    "aadhaarJpeg": "https://persist.signzy.tech/jpeg",
    "aadhaarPdf": "https://persist.signzy.tech/pdf",
}
BANK: dict[str, Any] = {
    "active": "yes",
    "reason": "success",
    "nameMatch": "yes",
    "mobileMatch": "not available",
    "nameMatchScore": "not available",
    "signzyReferenceId": "abc",
    "auditTrail": {"nature": "BANK RRN", "value": "334912557776", "timestamp": "2023-12-15T07:11:09.151Z"},
    "bankTransfer": {"response": "Transaction Successful", "beneName": "RAVI KUMAR", "beneIFSC": "KKBK0008066"},
}
NAMES = {*DETAILS, *SPLIT, *BANK, "validAadhaarDSC", "beneName"}
WHOLE = "499118665246"
"""An Aadhaar number as UIDAI publishes it for tests."""


def signed(word: Any) -> dict[str, Any]:
    return DETAILS | {"x509Data": {"validAadhaarDSC": word}}


# Aadhaar --------------------------------------------------------------------------------------------------------------


def test_signed_data_with_an_address_is_approved() -> None:
    at = datetime(2024, 4, 8, tzinfo=UTC)
    assert mapping.digilocker(DETAILS, BOTH, at) == Evidence(
        standing=Standing.APPROVED,
        vendor_status="aadhaar_dsc_yes",
        checks={"aadhaar": "passed", "address": "passed"},
        identity=Identity(
            name="Ravi Kumar",
            date_of_birth=date(1990, 1, 31),
            aadhaar_last4="3445",
            address=Address(
                line1="S/O Ram Kumar, 14 Main Road", city="LOOHAR", state="UTTAR PRADESH", pin_code="221717"
            ),
        ),
        artifacts=(Artifact(type="aadhaar_front", url="https://persist.signzy.tech/jpeg"),),
        occurred_at=at,
    )


@pytest.mark.parametrize("word", ["yes", "YES", " Yes "])
def test_signature_is_valid_however_it_is_written(word: str) -> None:
    assert mapping.digilocker(signed(word), BOTH).standing is Standing.APPROVED


def test_signature_that_is_wrong_is_rejected() -> None:
    found = mapping.digilocker(signed("no"), BOTH)
    assert (found.standing, found.rejection_code) == (Standing.REJECTED, "aadhaar_invalid")
    assert found.checks == {"aadhaar": "failed", "address": "failed"}
    assert found.vendor_status == "aadhaar_dsc_no"


@pytest.mark.parametrize(
    "word", [None, "", "true", True, 1, "valid", "not available", [], {}, "y", "Ravi Kumar", "yes!"]
)
def test_signature_of_which_nothing_is_known_is_a_review(word: Any) -> None:
    found = mapping.digilocker(signed(word), BOTH)
    assert (found.standing, found.rejection_code, found.vendor_status) == (
        Standing.REVIEW,
        None,
        "aadhaar_dsc_unknown",
    )
    assert set(found.checks.values()) == {"review"}


@pytest.mark.parametrize("details", [{}, {"x509Data": None}, {"x509Data": "yes"}, {"validAadhaarDSC": "yes"}])
def test_no_signature_is_a_review(details: dict[str, Any]) -> None:
    found = mapping.digilocker(details, BOTH)
    assert (found.standing, found.identity) == (Standing.REVIEW, None)


def test_address_fails_with_the_signature_that_vouches_for_it() -> None:
    found = mapping.digilocker(signed("no"), {"address"})
    assert (found.standing, found.rejection_code, found.checks) == (
        Standing.REJECTED,
        "address_mismatch",
        {"address": "failed"},
    )


def test_name_that_is_missing_is_a_review() -> None:
    found = mapping.digilocker(DETAILS | {"name": " "}, BOTH)
    assert (found.standing, found.checks["aadhaar"]) == (Standing.REVIEW, "review")


def test_only_checks_that_were_asked_for_count() -> None:
    details: dict[str, Any] = DETAILS | {"splitAddress": None}
    assert mapping.digilocker(details, BOTH).standing is Standing.REVIEW
    found = mapping.digilocker(details, {"aadhaar"})
    assert (found.standing, found.checks) == (Standing.APPROVED, {"aadhaar": "passed"})


def test_nothing_asked_for_approves_nothing() -> None:
    assert mapping.digilocker(DETAILS, ()).standing is Standing.REVIEW


ADDRESSES: list[tuple[Any, Any]] = [
    ({"city": []}, {"city": "BALLIA"}),
    ({"city": ["", None, "LOOHAR"]}, {}),
    ({"state": ["GOA"]}, {"state": "GOA"}),
    ({"state": "GOA"}, {"state": "GOA"}),
    ({"pincode": 221717}, {}),
    ({"pincode": "221 717"}, {}),
    ({"country": []}, {"country": "IN"}),
    ({"country": ["INDIA"]}, {"country": "IN"}),
    ({"country": [["NP", "NPL"]]}, {"country": "NP"}),
    ({"addressLine": ""}, {"line1": DETAILS["address"]}),
    ({"addressLine": "  14   Main Road\n"}, {"line1": "14 Main Road"}),
    ({"state": [[]]}, None),
    ({"state": None}, None),
    ({"city": [], "district": []}, None),
    ({"pincode": "021717"}, None),
    ({"pincode": "22171"}, None),
    ({"pincode": True}, None),
    ({"pincode": "२२१७१७"}, None),
]


@pytest.mark.parametrize(("changes", "expected"), ADDRESSES)
def test_address_is_read_from_lists_and_is_whole_or_none(changes: Any, expected: Any) -> None:
    found = mapping.an_address(DETAILS | {"splitAddress": SPLIT | changes})
    if expected is None:
        assert found is None
        return
    whole: dict[str, Any] = {"line1": SPLIT["addressLine"], "city": "LOOHAR", "state": "UTTAR PRADESH"}
    assert found == Address(**(whole | {"pin_code": "221717", "country": "IN"} | expected))


@pytest.mark.parametrize("split", [None, [], "Loohar", 7])
def test_address_as_one_text_alone_is_none(split: Any) -> None:
    assert mapping.an_address(DETAILS | {"splitAddress": split}) is None


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "https://persist.signzy.tech/jpeg"),
        ({"aadhaarJpeg": None}, "https://persist.signzy.tech/pdf"),
        ({"aadhaarJpeg": "/9j/4AAQ"}, "https://persist.signzy.tech/pdf"),
        ({"aadhaarJpeg": "", "aadhaarPdf": ""}, None),
    ],
)
def test_artifact_is_the_picture_else_the_pdf_and_never_the_photo(changes: Any, url: str | None) -> None:
    found = mapping.artifacts(DETAILS | changes)
    assert [(each.type, each.url) for each in found] == ([("aadhaar_front", url)] if url else [])


@pytest.mark.parametrize(
    ("uid", "digits"),
    [
        ("xxxxxxxx3445", "3445"),
        ("XXXX XXXX 3445", "3445"),
        ("xxxx-xxxx-3445", "3445"),
        ("********3445", "3445"),
        (WHOLE, "5246"),
        (int(WHOLE), "5246"),
        ("4991 1866 5246", "5246"),
        ("xxxxxxxxxxxx", None),
        ("3445", None),
        (3445, None),
        ("xxxxxxxx३४४५", None),
        ("xxxxxxxx3445\n1", None),
        ("", None),
        (None, None),
        (True, None),
        (10**30, None),
    ],
)
def test_of_an_aadhaar_number_four_digits_stay(uid: Any, digits: str | None) -> None:
    assert reading.last_four(uid) == digits


@pytest.mark.parametrize("written", [WHOLE, "4991 1866 5246", "4991-1866-5246"])
def test_whole_aadhaar_number_never_leaves(written: str) -> None:
    details = DETAILS | {
        "uid": written,
        "name": f"Ravi {written}",
        "address": f"UID {written}",
        "splitAddress": SPLIT | {"addressLine": f"UID {written}", "city": [f"{written} City"]},
    }
    found = mapping.digilocker(details, BOTH)
    assert found.identity is not None
    assert found.identity.aadhaar_last4 == "5246"
    shown = "".join(repr(getattr(found.identity, name)) for name in ("name", "aadhaar_last4"))
    assert found.identity.address is not None
    shown += found.identity.address.line1 + found.identity.address.city
    assert shown.count("5246") == 4
    assert "4991" not in shown
    assert "1866" not in shown


# Bank accounts --------------------------------------------------------------------------------------------------------


def test_account_that_is_the_persons_is_approved() -> None:
    assert mapping.bank(BANK) == Evidence(
        standing=Standing.APPROVED,
        vendor_status="bank_active_yes",
        checks={"bank": "passed"},
        identity=Identity(name="RAVI KUMAR"),
        occurred_at=datetime(2023, 12, 15, 7, 11, 9, 151000, UTC),
    )


@pytest.mark.parametrize("reason", ["Either ifsc or bank account is invalid", "something else", None])
def test_account_that_does_not_exist_is_rejected(reason: Any) -> None:
    found = mapping.bank({"active": "no", "reason": reason, "nameMatch": "not available"})
    assert (found.standing, found.rejection_code) == (Standing.REJECTED, "bank_invalid")
    assert (found.checks, found.vendor_status, found.identity) == ({"bank": "failed"}, "bank_active_no", None)


@pytest.mark.parametrize("active", [None, "", "not available", "true", True, 1, [], "maybe", "Ravi Kumar"])
def test_account_of_which_nothing_is_known_is_a_review(active: Any) -> None:
    found = mapping.bank(BANK | {"active": active})
    assert (found.standing, found.vendor_status, found.checks) == (
        Standing.REVIEW,
        "bank_active_unknown",
        {"bank": "review"},
    )


@pytest.mark.parametrize(
    ("match", "score", "owner", "standing"),
    [
        ("yes", "not available", "RAVI KUMAR", Standing.APPROVED),
        ("yes", "0.95", "RAVI KUMAR", Standing.APPROVED),
        ("yes", 0.9, "", Standing.APPROVED),
        ("yes", "0.89", "RAVI KUMAR", Standing.REVIEW),
        ("yes", 0, "RAVI KUMAR", Standing.REVIEW),
        ("no", "0.1", "SOMEBODY ELSE", Standing.REVIEW),
        ("no", "0.99", "RAVI KUMAR", Standing.REVIEW),
        # The host compares the name.
        ("not available", "not available", "RAVI KUMAR", Standing.APPROVED),
        (None, None, "RAVI KUMAR", Standing.APPROVED),
        ("not available", "not available", "", Standing.REVIEW),
        ("partial", "not available", "RAVI KUMAR", Standing.REVIEW),
        ("mismatch", "not available", "RAVI KUMAR", Standing.REVIEW),
        (None, None, None, Standing.REVIEW),
    ],
)
def test_owner_of_an_account(match: Any, score: Any, owner: Any, standing: Standing) -> None:
    found = mapping.bank(BANK | {"nameMatch": match, "nameMatchScore": score, "bankTransfer": {"beneName": owner}})
    assert found.standing is standing
    assert found.rejection_code is None


# Anything -------------------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(("yes", "no", "", "0.5", "31/01/1990", "221717", "xxxxxxxx3445", "Ravi", "https://x.example/"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(sorted(NAMES)), values, max_size=4),
    max_leaves=12,
)


@given(details=st.dictionaries(st.sampled_from(sorted(NAMES)), JSON))
def test_whatever_comes_is_read_and_only_a_yes_is_approved(details: dict[str, Any]) -> None:
    consent, account = mapping.digilocker(details, BOTH), mapping.bank(details)
    if consent.standing is Standing.APPROVED:
        assert reading.a_word(details["x509Data"]["validAadhaarDSC"]) == "yes"
    if account.standing is Standing.APPROVED:
        assert reading.a_word(details["active"]) == "yes"
    for found in (consent, account):
        assert (found.rejection_code is not None) == (found.standing is Standing.REJECTED)


def test_lists_that_have_no_end_are_not_followed() -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    assert reading.a_text(deep) is None
    assert reading.a_text([["x"]]) == "x"
    assert reading.a_text([[["x"]]]) is None


# Tables ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("results", "standing", "code"),
    [
        ({"aadhaar": "passed", "address": "passed", "bank": "passed"}, Standing.APPROVED, None),
        ({"aadhaar": "passed", "address": "review"}, Standing.REVIEW, None),
        ({"aadhaar": "review", "address": "failed"}, Standing.REJECTED, "address_mismatch"),
        ({"address": "failed", "aadhaar": "review"}, Standing.REJECTED, "address_mismatch"),
        ({"bank": "failed", "address": "failed", "aadhaar": "failed"}, Standing.REJECTED, "aadhaar_invalid"),
        ({}, Standing.REVIEW, None),
    ],
)
def test_worst_result_counts(results: Any, standing: Standing, code: str | None) -> None:
    found = mapping.verdict(results, "x", None, (), None)
    assert (found.standing, found.rejection_code) == (standing, code)


def test_codes_are_codes_and_each_check_has_one() -> None:
    assert set(mapping.CODES) == BOTH | {"bank"}
    assert set(mapping.CODES.values()) <= set(get_args(RejectionCode))


@pytest.mark.parametrize(
    ("text", "status"),
    [("Token is Used", "token_used"), ("TOKEN NOT FOUND", "token_not_found"), ("must be a number", None), ("", None)],
)
def test_lapsed_link_leaves_the_person_where_they_were(text: str, status: str | None) -> None:
    found = mapping.lapsed(text)
    assert found == (None if status is None else Evidence(standing=Standing.STARTED, vendor_status=status))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("31/01/1990", date(1990, 1, 31)),
        ("31-01-1990", date(1990, 1, 31)),
        ("01/31/1990", None),
        ("30/02/1990", None),
        ("1990", None),
        ("1990-01-31", None),
        ("31/01/1990\n", date(1990, 1, 31)),
        ("٣١/٠١/١٩٩٠", None),
        (None, None),
        (19900131, None),
    ],
)
def test_dates_have_the_day_first(written: Any, expected: date | None) -> None:
    assert reading.a_date(written) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (1712583747105, datetime(2024, 4, 8, 13, 42, 27, 105000, UTC)),
        (1712583747105.0, datetime(2024, 4, 8, 13, 42, 27, 105000, UTC)),
        ("2023-12-15T07:11:09.151Z", datetime(2023, 12, 15, 7, 11, 9, 151000, UTC)),
        ("2023-12-15T12:41:09+05:30", datetime(2023, 12, 15, 7, 11, 9, tzinfo=UTC)),
        (10**40, None),
        ("yesterday", None),
        (True, None),
        (None, None),
        ([], None),
    ],
)
def test_times_are_milliseconds_or_iso(written: Any, expected: datetime | None) -> None:
    assert reading.a_time(written) == expected


# Errors ---------------------------------------------------------------------------------------------------------------

PENDING = "Consent journey is not completed"


def loopback(text: Any) -> Any:
    return {"error": {"statusCode": 400, "name": "Error", "message": text}}


def loopback_with_status(text: str) -> Any:
    return {"error": {"name": "Error", "status": 400, "message": text}}


def loopback_in_full(text: str) -> Any:
    return {
        "error": {
            "name": "error",
            "message": text,
            "status": 400,
            "reason": "INVALID_PARAM",
            "type": "Bad Request",
            "statusCode": 400,
        }
    }


@pytest.mark.parametrize("form", [loopback, loopback_with_status, loopback_in_full])
def test_all_forms_of_loopback_are_read(form: Any) -> None:
    assert refusals.message(answer(400, form("beneficiaryIFSC is not valid"))) == "beneficiaryifsc is not valid"
    assert refusals.is_about_the_account(answer(422, form("beneficiaryIFSC is not valid")))
    assert refusals.is_not_yet(answer(401, form(PENDING)))
    assert type(refusals.refusal(answer(403, form("Request limit exceeded")))) is VendorUnavailable


def answer(status: int, body: Any) -> Response:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Response(status=status, headers={}, body=raw)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, loopback(PENDING), True),
        (404, {"message": PENDING}, True),
        (401, {"message": "Request was NOT COMPLETED by the user"}, True),
        (401, loopback("Authorization Required"), False),
        (401, {"error": PENDING}, False),
        (401, "<html>", False),
        (404, {"message": "no Route matched with those values"}, False),
        (403, loopback(PENDING), False),
        (400, loopback(PENDING), False),
    ],
)
def test_pending_is_told_by_its_text(status: int, body: Any, expected: bool) -> None:
    assert refusals.is_not_yet(answer(status, body)) is expected


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, loopback("Authorization Required"), VendorAuthError),
        (401, {"message": "Invalid authentication credentials"}, VendorAuthError),
        (401, "<html>", VendorAuthError),
        (401, [], VendorAuthError),
        (401, {"error": PENDING}, VendorAuthError),
        (403, {"message": "You cannot consume this service"}, VendorAuthError),
        (403, loopback("Insufficient credits"), VendorAuthError),
        (403, loopback(PENDING), VendorAuthError),
        (403, loopback("Request limit exceeded"), VendorUnavailable),
        (404, {"message": "no Route matched with those values"}, VendorProtocolError),
        (404, "", VendorProtocolError),
        (400, loopback(PENDING), VendorProtocolError),
        (400, {"message": "must be a number"}, VendorProtocolError),
        (409, loopback("no match"), VendorProtocolError),
        (422, loopback(["x"]), VendorProtocolError),
        (204, "", VendorProtocolError),
    ],
)
def test_errors(status: int, body: Any, error: type[Exception]) -> None:
    found = refusals.refusal(answer(status, body))
    assert type(found) is error
    assert str(found) in ("", error.__doc__)
    assert PENDING not in repr(found)
