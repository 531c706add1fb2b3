"""The mapping's tables: statuses, reasons, checks, identities, dates."""

from datetime import UTC, date, datetime
from typing import Any, get_args

import pytest
from kyc_hyperverge import mapping, reading
from kyc_hyperverge.reasons import REASONS, rejection_code

from usercore.plugins import Artifact, Identity, RejectionCode, Standing, VendorProtocolError

STATUSES = [
    ("started", Standing.STARTED),
    ("kyc_in_progress", Standing.SUBMITTED),
    ("auto_approved", Standing.APPROVED),
    ("auto_declined", Standing.REJECTED),
    ("needs_review", Standing.REVIEW),
    ("manually_approved", Standing.MANUALLY_APPROVED),
    ("manually_declined", Standing.MANUALLY_REJECTED),
    ("user_cancelled", Standing.STARTED),
    ("error", Standing.STARTED),
    ("ongoing", Standing.STARTED),
]
UNKNOWN = [
    *("expired", "approved", "auto-approve", "auto_approved_2", "AUTO", "yes", "success", "Ravi Kumar", "0"),
    *("autoApproved", "AUTO_APPROVED", "auto-approved", " auto_approved ", "auto_approved\n", "manuallyApproved"),
]


def output(status: Any = "auto_declined", **more: Any) -> dict[str, Any]:
    return {"status": status, "flags": [], "failureReason": None, **more}


def module(name: str, result: Any, **more: Any) -> dict[str, Any]:
    return {"module": name, "moduleId": "m1", "apiResponse": {"statusCode": "200", "result": result}, **more}


def pan(fields: Any, action: str = "pass", details: Any = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "details": [{"fieldsExtracted": fields}],
        "summary": {"action": action, "details": details or []},
    }
    return module("ID Card Validation", found, documentSelected="pan", **more)


def selfie(details: Any, action: Any = "pass", name: str = "Selfie Validation", **more: Any) -> dict[str, Any]:
    return module(name, {"details": details, "summary": {"action": action}}, **more)


LIVING = selfie({"liveFace": {"value": "yes", "confidence": "high"}})
MATCHING = selfie({"match": {"value": "yes", "confidence": "high"}}, name="Face Match")


@pytest.mark.parametrize(("status", "standing"), STATUSES)
def test_every_documented_status(status: str, standing: Standing) -> None:
    found = mapping.evidence(output(status), {})
    assert (found.standing, found.vendor_status) == (standing, status)
    assert (found.rejection_code is not None) == (standing in mapping.REJECTIONS)


def test_every_status_of_the_table_is_tested() -> None:
    assert dict(STATUSES) == mapping.STANDINGS


@pytest.mark.parametrize("status", UNKNOWN)
def test_unknown_status_is_a_review_and_is_not_passed_on(status: str) -> None:
    found = mapping.evidence(output(status), {"results": [pan({})]})
    assert (found.standing, found.vendor_status, found.rejection_code) == (Standing.REVIEW, "unknown", None)


@pytest.mark.parametrize("status", [None, 1, True, "", " ", [], {"value": "auto_approved"}])
def test_no_status_is_no_answer(status: Any) -> None:
    with pytest.raises(VendorProtocolError):
        mapping.evidence(output(status), {})


# Reasons --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Aadhaar number match failed", "aadhaar_invalid"),  # theirs
        ("Document not detected", "document_unreadable"),  # theirs
        ("Image is blurred", "document_unreadable"),
        ("document_has_expired", "document_expired"),
        ("Face match failed", "face_mismatch"),
        ("FACE_MISMATCH", "face_mismatch"),
        ("Faces do not match", "face_mismatch"),
        ("Address mismatch", "address_mismatch"),
        ("address does not match", "address_mismatch"),
        ("Liveness check failed", "liveness_failed"),
        ("Live face not detected", "liveness_failed"),
        ("Multiple faces", "liveness_failed"),
        ("sunglasses", "liveness_failed"),
        ("What happened", "vendor_declined"),
        ("PAN verification failed", "pan_invalid"),
        ("Name match failed", "identity_mismatch"),
        ("dob mismatch", "identity_mismatch"),
        ("PAN name match failed", "identity_mismatch"),
        ("condition_3_needs_review", "vendor_declined"),
        ("company policy", "vendor_declined"),
        ("expand delivery", "vendor_declined"),
        ("", "vendor_declined"),
    ],
)
def test_reason(text: str, code: RejectionCode) -> None:
    found = mapping.evidence(output(failureReason={"text": text, "id": "condition_9"}), {})
    assert (found.standing, found.rejection_code) == (Standing.REJECTED, code)


def test_every_code_of_the_table_is_one_of_the_hosts() -> None:
    assert {code for code, _ in REASONS} < set(get_args(RejectionCode))


def test_reason_comes_before_modules_and_those_before_flags() -> None:
    flags = [{"source": "m", "values": {"422": "Document not detected"}}]
    logs = {"results": [pan({}, "fail", [{"code": "1", "message": "Document has expired"}])], "flags": flags}
    reason = {"text": "PAN verification failed", "id": "x"}
    assert mapping.evidence(output(failureReason=reason, flags=flags), logs).rejection_code == "pan_invalid"
    assert mapping.evidence(output(flags=flags), logs).rejection_code == "document_expired"
    assert mapping.evidence(output(flags=flags), {}).rejection_code == "document_unreadable"
    assert mapping.evidence(output(flags={}), {"flags": {}}).rejection_code == "vendor_declined"
    assert mapping.evidence(output(flags={"values": {"1": "Document not detected"}}), {}).rejection_code == (
        "document_unreadable"
    )
    assert rejection_code(["who knows", "Face match failed"]) == "face_mismatch"


def test_text_of_a_module_that_passed_is_no_reason() -> None:
    logs = {"results": [pan({}, "pass", [{"message": "Document has expired"}])]}
    assert mapping.evidence(output(), logs).rejection_code == "vendor_declined"


@pytest.mark.parametrize("text", ["fraud", "Tampered document", "suspected forgery", "on block list", "DEEPFAKE"])
@pytest.mark.parametrize(
    ("status", "standing", "code"),
    [
        ("auto_declined", Standing.FRAUD, "fraud"),
        ("manually_declined", Standing.FRAUD, "fraud"),
        ("auto_approved", Standing.REVIEW, None),
        ("manually_approved", Standing.MANUALLY_APPROVED, None),
        ("needs_review", Standing.REVIEW, None),
        ("user_cancelled", Standing.STARTED, None),
    ],
)
def test_fraud(text: str, status: str, standing: Standing, code: str | None) -> None:
    flags = [{"source": "m", "values": {"7": "Face match failed"}}, {"source": "m", "values": {"8": text}}]
    found = mapping.evidence(output(status, flags=flags), {})
    assert (found.standing, found.rejection_code) == (standing, code)


# Checks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "action", "result"),
    [
        ({"liveFace": {"value": "yes", "confidence": "high"}}, "pass", "passed"),
        ([{"attempts": [{"liveFace": {"value": "yes"}}]}], "pass", "passed"),
        ({"match": {"value": "yes", "confidence": "high"}}, "pass", "passed"),
        ({"match": "yes"}, "pass", "passed"),
        ({"match": "no"}, "pass", "failed"),
        ({"match": {"value": "no"}}, "pass", "failed"),
        ([{"attempts": [{"liveFace": {"value": "no"}}]}], "pass", "failed"),
        ({"liveFace": {"value": "yes"}}, "fail", "failed"),
        ({"liveFace": {"value": "yes"}}, "manualReview", "review"),
        ({"liveFace": {"value": "maybe"}}, "pass", "review"),
        ({"liveFace": None}, "pass", "review"),
        ({"match": 0.95}, "pass", "review"),
        ({}, None, "review"),
        (None, 7, "review"),
    ],
)
def test_selfie(details: Any, action: Any, result: str) -> None:
    name, other = ("Face Match", LIVING) if "match" in str(details) else ("Selfie Validation", MATCHING)
    modules = [selfie(details, action, name), other]
    assert mapping.evidence(output(), {"results": modules}).checks == {"selfie": result}
    assert mapping.evidence(output(), {"results": modules[::-1]}).checks == {"selfie": result}


@pytest.mark.parametrize(
    ("modules", "result"),
    [
        ([LIVING, MATCHING], "passed"),
        ([selfie({"liveFace": {"value": "yes"}, "match": {"value": "yes"}})], "passed"),
        ([LIVING, selfie({"match": {"value": "yes"}}, name="Face Match", documentSelected="pan")], "passed"),
        ([selfie({}, name="Liveness"), selfie({}, name="Face Match")], "passed"),
        # One of the two is missing.
        ([LIVING], "review"),
        ([MATCHING], "review"),
        ([LIVING, LIVING], "review"),
        # A module of a name that we do not know: its yes is nobody's, its no is the person's.
        ([LIVING, module("Step 7", {"details": {"match": "yes"}, "summary": {"action": "pass"}})], "review"),
        ([LIVING, MATCHING, module("Step 7", {"details": {"match": {"value": "no"}}})], "failed"),
        ([LIVING, MATCHING, module("Step 7", {"details": {"match": {"value": False}}})], "review"),
        # The form of verifyPair: beside the details.
        ([LIVING, module("Face Match", {"match": "yes", "match-score": 95, "summary": {"action": "pass"}})], "passed"),
        ([LIVING, module("Face Match", {"match": "no", "summary": {"action": "pass"}})], "failed"),
        (
            [LIVING, module("Face Match", {"match": "yes", "to-be-reviewed": "yes", "summary": {"action": "pass"}})],
            "review",
        ),
        ([LIVING, MATCHING, module("Step 7", {"details": [{"liveFace": "no"}]}, documentSelected="aadhaar")], "failed"),
        ([module("Step 7", {"details": {"match": "no"}, "summary": {"action": "pass"}})], "failed"),
    ],
)
def test_a_selfie_lives_and_is_the_face_on_the_document(modules: list[Any], result: str) -> None:
    found = mapping.evidence(output("auto_approved"), {"results": modules})
    assert found.checks == {"selfie": result}
    assert found.standing == (Standing.REVIEW if result == "failed" else Standing.APPROVED)


@pytest.mark.parametrize("module", [pan({}, "fail"), module("Step 7", {"summary": {"action": "fail"}})])
def test_approval_in_spite_of_a_module_that_failed_is_a_review(module: Any) -> None:
    modules = [LIVING, MATCHING, module]
    assert mapping.evidence(output("auto_approved"), {"results": modules}).standing == Standing.REVIEW
    assert mapping.evidence(output("manually_approved"), {"results": modules}).standing == Standing.MANUALLY_APPROVED


@pytest.mark.parametrize(("action", "result"), [("pass", "passed"), ("fail", "failed"), ("other", "review")])
def test_pan(action: str, result: str) -> None:
    assert mapping.evidence(output(), {"results": [pan({}, action)]}).checks == {"pan": result}


def test_reviewer_beats_the_modules_that_ran_and_no_others() -> None:
    logs = {"results": [pan({}, "fail")]}
    assert mapping.evidence(output("manually_approved"), logs).checks == {"pan": "passed"}
    assert mapping.evidence(output("manually_declined"), logs).checks == {"pan": "failed"}
    assert mapping.evidence(output("auto_approved"), {}).checks == {}


@pytest.mark.parametrize("results", [None, {}, [], "x", [None, 7, "x"], [{}], [{"module": None, "apiResponse": []}]])
def test_modules_of_whatever_shape_break_nothing(results: Any) -> None:
    found = mapping.evidence(output("auto_approved"), {"results": results, "userDetails": results})
    assert (found.standing, found.checks, found.identity, found.artifacts) == (Standing.APPROVED, {}, None, ())


def test_other_documents_are_no_check_of_ours() -> None:
    modules = [pan({}) | {"documentSelected": "passport"}, module("Company Search", {"summary": {"action": "pass"}})]
    assert mapping.evidence(output(), {"results": modules}).checks == {}


# Identity -------------------------------------------------------------------------------------------------------------


def test_identity_is_that_of_the_pan_card() -> None:
    fields = {
        "fullName": {"value": " RAVI  KUMAR "},
        "dateOfBirth": {"value": "31/01/1990"},
        "idNumber": {"value": "abcpe 1234f"},
    }
    logs = {"userDetails": {"name": "Somebody", "dateOfBirth": "01-01-2001"}, "results": [pan(fields)]}
    assert mapping.evidence(output(), logs).identity == Identity(
        name="RAVI KUMAR", date_of_birth=date(1990, 1, 31), pan_number="ABCPE1234F"
    )


def test_identity_falls_back_to_what_is_said_of_the_person() -> None:
    logs = {
        "userDetails": {"name": "Jane Doe", "dateOfBirth": "03-02-1993"},
        "results": [pan({"fullName": {"value": ""}})],
    }
    found = mapping.evidence(output(), logs)
    assert found.identity == Identity(name="Jane Doe", date_of_birth=date(1993, 2, 3))
    assert "Jane" not in repr(found)


@pytest.mark.parametrize("number", ["123456789012", "1234 5678 9012", "XXXXXXXX9012", "xxxx-xxxx-9012"])
def test_of_an_aadhaar_number_four_digits_are_kept(number: str) -> None:
    fields = {"aadhaarNumber": {"value": number}}
    logs = {"results": [pan(fields) | {"documentSelected": "aadhaar"}]}
    identity = mapping.evidence(output(), logs).identity
    assert identity == Identity(aadhaar_last4="9012")


@pytest.mark.parametrize("number", ["123456789012", "1234", "XXXXXXXX9012", "1234 5678 9012", 7, None])
def test_aadhaar_number_in_place_of_a_pan_goes_nowhere(number: Any) -> None:
    logs = {"results": [pan({"idNumber": number}), pan({"aadhaar": number}) | {"documentSelected": "voter"}]}
    found = mapping.evidence(output(), logs)
    assert found.identity == (Identity(pan_number="1234") if number == "1234" else None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("03-02-1993", date(1993, 2, 3)),
        ("03/02/1993", date(1993, 2, 3)),
        ("1993-02-03", date(1993, 2, 3)),
        ("1993-02-03T00:00:00.000Z", date(1993, 2, 3)),
        ({"value": "03-02-1993"}, date(1993, 2, 3)),
        ("29-02-1992", date(1992, 2, 29)),
        ("29-02-1993", None),
        ("02-13-1993", None),
        ("3-2-1993", None),
        ("1993", None),
        ("0000-01-01", None),
        ("", None),
        (None, None),
        (19930203, None),
    ],
)
def test_dates(text: Any, expected: date | None) -> None:
    assert reading.a_date(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-12-19T06:51:47.000Z", datetime(2023, 12, 19, 6, 51, 47, tzinfo=UTC)),
        ("2023-12-19T06:51:47", datetime(2023, 12, 19, 6, 51, 47, tzinfo=UTC)),
        ("2023-01-30T1722.102Z", None),  # theirs
        ("0001-01-01T00:00:00+05:30", None),
        ("", None),
        (7, None),
    ],
)
def test_times(text: Any, expected: datetime | None) -> None:
    assert reading.a_time(text) == expected


@pytest.mark.parametrize(
    ("value", "number"), [(200, 200), ("200", 200), ("2x", None), (True, None), (None, None), ("٢", None)]
)
def test_numbers(value: Any, number: int | None) -> None:
    assert reading.a_number(value) == number


def test_pictures() -> None:
    modules = [
        pan({}, imageUrl="https://x/pan"),
        selfie({}, imageUrl="https://x/selfie", processedAt="2023-12-19T06:51:47.000Z"),
        selfie({}, imageUrl="https://x/second", processedAt="2023-12-19T06:51:48.000Z"),
        pan({}, imageUrl="javascript:x") | {"documentSelected": "aadhaar"},
        pan({}, imageUrl="https://x/other") | {"documentSelected": "passport"},
    ]
    found = mapping.evidence(output("auto_approved"), {"results": modules})
    assert found.artifacts == (
        Artifact(type="pan_card", url="https://x/pan"),
        Artifact(type="selfie", url="https://x/selfie"),
    )
    assert found.occurred_at == datetime(2023, 12, 19, 6, 51, 48, tzinfo=UTC)
    assert mapping.evidence(output("manually_approved"), {"results": modules}).occurred_at is None


@pytest.mark.parametrize("word", [" YES ", "YES", "Yes", "yes\n", "true", True, 1, None, ""])
def test_only_the_documented_word_speaks_for_a_face(word: Any) -> None:
    """The host approves nobody of whom a check is to be reviewed, whatever the standing is."""
    match = selfie({"match": {"value": word, "confidence": "high"}}, name="Face Match")
    found = mapping.evidence(output("auto_approved"), {"results": [pan({}), LIVING, match]})
    assert found.checks["selfie"] == "review"


@pytest.mark.parametrize("action", [" PASS ", "PASS", "passed", "pass ", True, None])
def test_only_the_documented_word_passes_a_module(action: Any) -> None:
    found = mapping.evidence(output("auto_approved"), {"results": [pan({}, action), LIVING, MATCHING]})
    assert found.checks["pan"] == "review"
