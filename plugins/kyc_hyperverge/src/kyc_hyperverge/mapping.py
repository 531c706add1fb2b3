"""From what HyperVerge answers to what the host understands: pure, and whatever is not known goes to review."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from kyc_hyperverge.reading import a_constant, a_date, a_pan, a_text, a_time, a_word, an_object, last_four, objects
from kyc_hyperverge.reasons import is_fraud, rejection_code
from usercore.plugins import (
    Artifact,
    ArtifactType,
    Check,
    CheckResult,
    Evidence,
    Identity,
    RejectionCode,
    Standing,
    VendorProtocolError,
)

STANDINGS: Mapping[str, Standing] = {
    "started": Standing.STARTED,
    "kyc_in_progress": Standing.SUBMITTED,
    "auto_approved": Standing.APPROVED,
    "auto_declined": Standing.REJECTED,
    "needs_review": Standing.REVIEW,
    "manually_approved": Standing.MANUALLY_APPROVED,
    "manually_declined": Standing.MANUALLY_REJECTED,
    # The person left, or something broke: they may try again, and the case stays open.
    "user_cancelled": Standing.STARTED,
    "error": Standing.STARTED,
    # The iOS SDK's word for `started`.
    "ongoing": Standing.STARTED,
}
"""Every status that is documented. Any other is REVIEW."""

REJECTIONS = (Standing.REJECTED, Standing.MANUALLY_REJECTED)
YES_NO: Mapping[str, CheckResult] = {"yes": "passed", "no": "failed"}
ACTIONS: Mapping[str, CheckResult] = {"pass": "passed", "fail": "failed"}
"""Of `summary.action`. A third value is spoken of and nowhere shown: any other is `review`."""
LIVE, MATCH = "liveFace", "match"
"""What a module says of a face, and what a selfie that passes has to have both of."""
NAMES = ("fullName", "name")
BIRTHS = ("dateOfBirth", "dob")
NUMBERS = ("idNumber", "panNumber", "pan", "documentNumber", "aadhaarNumber", "aadhaar")
"""Under what names fields are extracted. Of these `fullName` and `dateOfBirth` are known; no list is published."""


def standing(status: str) -> Standing:
    """Of a status exactly as HyperVerge writes it: what only looks like an approval is none."""
    return STANDINGS.get(status, Standing.REVIEW)


def needs_details(result: Mapping[str, Any]) -> bool:
    """Whether it is so far that the modules have something to say."""
    return standing(_status(result)) not in (Standing.STARTED, Standing.SUBMITTED)


def evidence(output: Mapping[str, Any], logs: Mapping[str, Any]) -> Evidence:
    """From the `result` of the Output API, which decides, and that of the Logs API, which has the details.

    Raises VendorProtocolError when there is no status.
    """
    status = _status(output)
    stands = standing(status)
    modules = list(objects(logs.get("results")))
    texts = list(_reasons(output, logs, modules))
    code: RejectionCode | None = None
    if stands in REJECTIONS:
        code = rejection_code(texts)
        if is_fraud(texts):
            stands, code = Standing.FRAUD, "fraud"
    elif stands == Standing.APPROVED and (
        is_fraud(texts) or any(_worst(_results(each)) == "failed" for each in modules)
    ):
        # A flag or a failure that the workflow let pass: somebody has to look.
        stands = Standing.REVIEW
    manual = stands == Standing.MANUALLY_APPROVED
    return Evidence(
        standing=stands,
        # A word that is not in the documents may be anything, also about a person.
        vendor_status=status if status in STANDINGS else "unknown",
        rejection_code=code,
        checks=_checks(modules, manual=manual),
        identity=_identity(modules, an_object(logs.get("userDetails")) or an_object(output.get("userDetails"))),
        artifacts=_artifacts(modules),
        occurred_at=None if manual or stands == Standing.MANUALLY_REJECTED else _last_time(modules),
    )


def _status(result: Mapping[str, Any]) -> str:
    status = result.get("status")
    if not isinstance(status, str) or not status.strip():
        raise VendorProtocolError
    return status


def _result(module: Mapping[str, Any]) -> dict[str, Any]:
    return an_object(an_object(module.get("apiResponse")).get("result"))


def _details(module: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`details` is an object or a list, and in some versions has them once more below `attempts`."""
    for detail in objects(_result(module).get("details")):
        yield detail
        yield from objects(detail.get("attempts"))


def _words(module: Mapping[str, Any]) -> set[str]:
    """Of a module's name and id, which are chosen in HyperVerge's dashboard."""
    return set(f"{a_word(module.get('module'))}_{a_word(module.get('moduleId'))}".split("_"))


def _document(module: Mapping[str, Any]) -> str:
    """The kind of document or picture that a module is about: pan, aadhaar, selfie, or an empty text."""
    words = _words(module)
    if words & {"selfie", "liveness", "face", "facematch"}:
        return "selfie"  # also when it says with which document the face was compared
    selected = a_word(module.get("documentSelected"))
    if selected:
        return selected if selected in ("pan", "aadhaar") else ""
    return "pan" if "pan" in words else "aadhaar" if words & {"aadhaar", "aadhar"} else ""


def _checks(modules: list[dict[str, Any]], *, manual: bool) -> dict[Check, CheckResult]:
    cards: list[CheckResult] = [
        result for module in modules if _document(module) == "pan" for result in _results(module)
    ]
    faces = [face for module in modules if _document(module) != "pan" for face in _faces(module)]
    found: dict[Check, CheckResult] = {}
    if cards:
        found["pan"] = _worst(cards)
    if faces:
        found["selfie"] = _worst([result for _, result in faces])
        if found["selfie"] == "passed" and {part for part, _ in faces} != {LIVE, MATCH}:
            # A living person, but who? Or the right face, but of a photograph?
            found["selfie"] = "review"
    if manual:
        # Somebody at HyperVerge has looked at it all, and decided against its machines.
        for check in found:
            found[check] = "passed"
    return found


def _summary(module: Mapping[str, Any]) -> CheckResult:
    return ACTIONS.get(a_constant(an_object(_result(module).get("summary")).get("action")), "review")


def _said(module: Mapping[str, Any]) -> dict[str, CheckResult]:
    """What a module says by `liveFace` and `match`, of each the worst; `verifyPair` has them beside the details."""
    result = _result(module)
    found: dict[str, CheckResult] = {}
    if a_word(result.get("to-be-reviewed")) not in ("", "no"):
        found[MATCH] = "review"
    for detail in (result, *_details(module)):
        for part in (LIVE, MATCH):
            if part in detail:
                value = an_object(detail[part]).get("value", detail[part])
                said = YES_NO.get(a_constant(value), "review")
                found[part] = _worst([found.get(part, said), said])
    return found


def _results(module: Mapping[str, Any]) -> list[CheckResult]:
    """Everything that a module says."""
    return [_summary(module), *_said(module).values()]


def _faces(module: Mapping[str, Any]) -> Iterator[tuple[str, CheckResult]]:
    """What a module says of the face: that it lives, or that it is the one on the document.

    Of a module whose name says nothing of faces, only what does not speak for the person counts.
    """
    said, summary = _said(module), _summary(module)
    named = _document(module) == "selfie"
    if named and not said:
        yield MATCH if _words(module) & {"match", "facematch"} else LIVE, summary
    for part, result in said.items():
        if named:
            yield part, _worst([summary, result])
        elif result != "passed":
            yield part, result


def _worst(results: list[CheckResult]) -> CheckResult:
    return "failed" if "failed" in results else "review" if "review" in results else "passed"


def _identity(modules: list[dict[str, Any]], details: Mapping[str, Any]) -> Identity | None:
    """What was read off the documents: PAN first, then others, then what HyperVerge says of the person itself."""
    by_document: dict[str, list[dict[str, Any]]] = {"pan": [], "aadhaar": [], "": [], "selfie": []}
    for module in modules:
        for detail in _details(module):
            by_document[_document(module)].append(an_object(detail.get("fieldsExtracted")))
    pan, aadhaar = by_document["pan"], by_document["aadhaar"]
    everything = [*pan, *aadhaar, *by_document[""], dict(details)]
    identity = Identity(
        name=_first(a_text, everything, NAMES),
        date_of_birth=_first(a_date, everything, BIRTHS),
        pan_number=_first(a_pan, pan, NUMBERS),
        aadhaar_last4=_first(last_four, aadhaar, NUMBERS),
    )
    return identity if identity != Identity() else None


def _first(read: Any, sources: list[dict[str, Any]], names: tuple[str, ...]) -> Any:
    """The first that can be read."""
    return next((value for source in sources for name in names if (value := read(source.get(name))) is not None), None)


def _artifacts(modules: list[dict[str, Any]]) -> tuple[Artifact, ...]:
    types: dict[str, ArtifactType] = {"pan": "pan_card", "selfie": "selfie", "aadhaar": "aadhaar_front"}
    found: dict[ArtifactType, Artifact] = {}
    for module in modules:
        url, type_ = module.get("imageUrl"), types.get(_document(module))
        if type_ is not None and isinstance(url, str) and url.startswith(("https://", "http://")):
            found.setdefault(type_, Artifact(type=type_, url=url))
    return tuple(found.values())


def _last_time(modules: list[dict[str, Any]]) -> datetime | None:
    times = [time for module in modules if (time := a_time(module.get("processedAt"))) is not None]
    return max(times, default=None)


def _reasons(output: Mapping[str, Any], logs: Mapping[str, Any], modules: list[dict[str, Any]]) -> Iterator[str]:
    """What it says of why, the weightiest first: the reason, then modules that failed, then flags."""
    for result in (output, logs):
        reason = result.get("failureReason")
        yield from _texts(reason, *(an_object(reason).get(key) for key in ("text", "id")))
    for module in modules:
        summary = an_object(_result(module).get("summary"))
        if a_constant(summary.get("action")) != "pass":
            for detail in objects(summary.get("details")):
                yield from _texts(detail.get("message"), detail.get("code"))
    for result in (output, logs):
        for flag in objects(result.get("flags")):
            yield from _texts(*an_object(flag.get("values")).values())


def _texts(*values: object) -> Iterator[str]:
    return (text for value in values if (text := a_text(value)) is not None)
