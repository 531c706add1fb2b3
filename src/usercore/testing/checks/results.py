"""Checks of results: what becomes of each outcome, of what is unknown, of times and of Aadhaar numbers."""

import re

import msgspec

from usercore.pii import aadhaar
from usercore.plugins.errors import VendorError, VendorPending, VendorRejected
from usercore.plugins.guard import checked
from usercore.plugins.vendor import Check, Evidence, Standing, Started
from usercore.testing import people
from usercore.testing.changes import Place, leaves, parsed, replaced, verdicts
from usercore.testing.middle import Exchange
from usercore.testing.stand import Run, Stand
from usercore.testing.verdicts import Failed, Skipped

APPROVED = (Standing.APPROVED, Standing.MANUALLY_APPROVED)
REJECTED = (Standing.REJECTED, Standing.MANUALLY_REJECTED, Standing.FRAUD)
OPEN = (Standing.STARTED, Standing.SUBMITTED)

Step = frozenset[Check]


_ID = re.compile(r'"[0-9A-Fa-f-]{16,64}"')
"""A member of JSON that is an id and nothing else; written with hyphens, an Aadhaar number is shorter."""


async def unfinished_is_pending(stand: Stand) -> None:
    """Before the person is done, fetch raises VendorPending or gives a standing below REVIEW."""
    for step in stand.steps():
        run = await stand.run(step)
        if run.is_done:
            continue
        evidence = await _evidence(stand, run, "of an unfinished case")
        if evidence is not None and evidence.standing not in OPEN:
            raise Failed(f"an unfinished case is {evidence.standing.name}: nothing is decided before its end")


async def approval_is_approved(stand: Stand) -> None:
    """An approved case is APPROVED, and every check that was asked for is passed."""
    for step in stand.steps():
        evidence = await _of(stand, step, "approve")
        if evidence is None or evidence.standing not in APPROVED:
            raise Failed(f"an approved case is {_named(evidence)}: it is APPROVED")
        unpassed = [check for check in step if evidence.checks.get(check) != "passed"]
        if unpassed:
            raise Failed(f"an approved case has not passed {', '.join(sorted(unpassed))}: name each in `checks`")


async def decline_is_rejected(stand: Stand) -> None:
    """A declined case is rejected with a code, or stays open where the vendor has no word for it; never approved."""
    for step in stand.steps():
        evidence = await _of(stand, step, "decline")
        if evidence is None or evidence.standing in OPEN:
            # Such a vendor says the same of who left.
            other = await _of(stand, step, "cancel")
            if _named(other) == _named(evidence):
                continue
        if evidence is None or evidence.standing not in REJECTED:
            raise Failed(f"a declined case is {_named(evidence)}: it is REJECTED, or FRAUD")
        if evidence.rejection_code is None:
            raise Failed("a declined case has no rejection_code: `vendor_declined` says no more than that")


async def review_is_review(stand: Stand) -> None:
    """A case that somebody at the vendor looks at is REVIEW, or not done yet; never decided."""
    for step in stand.steps():
        evidence = await _of(stand, step, "review")
        if evidence is not None and evidence.standing > Standing.REVIEW:
            raise Failed(f"a case in review is {evidence.standing.name}: it is REVIEW")


async def leaving_decides_nothing(stand: Stand) -> None:
    """Who leaves is neither approved nor rejected: they may come back, so that the standing is STARTED."""
    for step in stand.steps():
        run = await stand.run(step, outcome="cancel")
        if run.is_done:
            # Nobody can leave what ends with the start.
            continue
        evidence = await _evidence(stand, run, "with the outcome cancel")
        if evidence is not None and evidence.standing > Standing.REVIEW:
            raise Failed(f"a case that the person left is {evidence.standing.name}: it is STARTED")


async def manual_decisions_count(stand: Stand) -> None:
    """What somebody at the vendor decides after a review is an approval or a rejection."""
    for step in stand.steps():
        for outcome, good in (("approve", APPROVED), ("decline", REJECTED)):
            run = await stand.run(step, outcome="review")
            before = await _evidence(stand, run, "of a case in review")
            if run.is_done or before is None or before.standing != Standing.REVIEW:
                # This vendor has no reviews that end.
                continue
            await stand.complete(run, outcome=outcome)
            evidence = await _evidence(stand, run, "after a review")
            if evidence is None or evidence.standing not in good:
                raise Failed(f"{outcome} after a review is {_named(evidence)}: it is {good[1].name} or {good[0].name}")


async def unknown_status_never_approves(stand: Stand) -> None:
    """An approved case whose status is a word that nobody knows is not approved: the vendor may have a new one."""
    for step in stand.steps():
        evidence = await _of_an_unknown_status(stand, step)
        if evidence is not None and evidence.standing in APPROVED:
            raise Failed("a status that is in no document was taken for an approval: what is unknown is REVIEW")


async def unknown_status_is_not_repeated(stand: Stand) -> None:
    """`vendor_status` is a word from the vendor's documents: another one may be anything, also a name."""
    for step in stand.steps():
        evidence = await _of_an_unknown_status(stand, step)
        if evidence is not None and people.seen(evidence.vendor_status):
            raise Failed("vendor_status is a text of the vendor's that is in no document: write `unknown`")


async def fetch_can_be_repeated(stand: Stand) -> None:
    """Fetching again gives equal evidence, whatever the order; only addresses of artifacts may change."""
    for step in stand.steps():
        for outcome in ("approve", "decline", "review"):
            try:
                run = await stand.run(step, outcome=outcome)
            except VendorRejected:
                continue
            first, second = await _evidence(stand, run, "once"), await _evidence(stand, run, "again")
            if _comparable(first) != _comparable(second):
                raise Failed(f"fetching a case with the outcome {outcome} twice gave two different results")


async def results_have_the_declared_types(stand: Stand) -> None:
    """Everything in Started and Evidence is of the type that it is declared to be: a Struct does not look itself."""
    for result in await _results(stand):
        try:
            checked(result, Started) if isinstance(result, Started) else checked(result, Evidence)
        except (TypeError, ValueError, msgspec.ValidationError) as error:
            if "zone" not in str(error):
                raise Failed(
                    f"something in {type(result).__name__} has another type than declared: see its fields"
                ) from None


async def times_have_zones(stand: Stand) -> None:
    """`occurred_at` and `expires_at` have a time zone."""
    for result in await _results(stand):
        for name in ("occurred_at", "expires_at"):
            value = getattr(result, name, None)
            if value is not None and getattr(value, "tzinfo", None) is None:
                raise Failed(f"{name} has no time zone: a time without one is hours off somewhere")


async def whole_aadhaar_numbers_stay_inside(stand: Stand) -> None:
    """Of an Aadhaar number at most the last four digits leave the plugin, in whatever field, result or webhook."""
    number = people.aadhaar_number()
    for step in stand.steps():
        for outcome in ("approve", "decline"):
            try:
                run = await stand.run(step, outcome=outcome, identity={"aadhaar_number": number})
            except VendorRejected:
                continue
            told: list[object] = [run.started, await _evidence(stand, run, "with an Aadhaar number")]
            if not run.is_done and outcome == "approve":
                told += [stand.read(hook.headers, hook.body) for hook in await stand.hooks(run)]
            for result in told:
                text = msgspec.json.encode(result).decode()
                # One id in a thousand is such a number by chance. The one that was given away is looked for everywhere.
                if number in text or number[:-4] in text or aadhaar.contains(_ID.sub("", text)):
                    raise Failed(f"a whole Aadhaar number is in {type(result).__name__}: keep only its last four")


async def _results(stand: Stand) -> list[Started | Evidence]:
    found: list[Started | Evidence] = []
    for step in stand.steps():
        for outcome in ("approve", "decline", "review", "cancel"):
            try:
                run = await stand.run(step, outcome=outcome)
            except VendorRejected:
                continue
            found.append(run.started)
            evidence = await _evidence(stand, run, f"with the outcome {outcome}")
            if evidence is not None:
                found.append(evidence)
    return found


async def _of(stand: Stand, step: Step, outcome: str) -> Evidence | None:
    """The evidence of a case with this outcome. None while the vendor has none."""
    try:
        run = await stand.run(step, outcome=outcome)
    except VendorRejected as error:
        return Evidence(standing=Standing.REJECTED, vendor_status="rejected", rejection_code=error.code)
    return await _evidence(stand, run, f"with the outcome {outcome}")


async def _evidence(stand: Stand, run: Run, what: str) -> Evidence | None:
    try:
        return await stand.result(run)
    except VendorPending:
        return None
    except VendorError as error:
        raise Failed(f"fetch of a case {what} raised {type(error).__name__}") from None


async def _of_an_unknown_status(stand: Stand, step: Step) -> Evidence | None:
    """What is made of an approved case in whose answers the status is a text with a person's name. None if nothing."""
    seen: list[dict[str, object]] = []
    ids: tuple[str, ...] = ()
    for outcome in ("approve", "approve", "decline", "review"):
        stand.middle.exchanges.clear()
        try:
            run = await stand.run(step, outcome=outcome)
            await _evidence(stand, run, f"with the outcome {outcome}")
            ids = (run.started.vendor_case_id, str(run.request.attempt_id))
        except VendorRejected:
            ids = ()
        seen.append({_key(exchange, ids): parsed(exchange.got) for exchange in stand.middle.exchanges})
    decisive: dict[str, set[Place]] = {
        key: verdicts(answer, seen[1].get(key), [other[key] for other in seen[2:] if key in other])
        for key, answer in seen[0].items()
    }
    if not any(decisive.values()):
        raise Skipped("its answers have no status that differs between approved and other cases")

    def change(exchange: Exchange) -> bytes:
        document = parsed(exchange.got)
        # The ids are not known before the start is over, and a key has no more than the path without them.
        key = next((key for key in decisive if key == _key(exchange, ids_now())), None)
        values = {
            place: unknown(value) for place, value in leaves(document).items() if place in decisive.get(key or "", ())
        }
        return msgspec.json.encode(replaced(document, values)) if values else exchange.got

    def unknown(value: object) -> object:
        return 987654 if type(value) in (int, float) else people.person().first_name

    def ids_now() -> tuple[str, ...]:
        return current

    request = stand.request(step)
    current: tuple[str, ...] = (str(request.attempt_id),)
    stand.middle.change = change
    try:
        run = await stand.run(request=request, outcome="approve")
        current = (run.started.vendor_case_id, str(request.attempt_id))
        return await stand.result(run)
    except VendorError:
        return None
    finally:
        stand.middle.change = None


def _key(exchange: Exchange, ids: tuple[str, ...]) -> str:
    """A call, whoever it is about."""
    path = exchange.path
    for id in sorted(ids, key=len, reverse=True):
        path = path.replace(id, "*")
    return f"{exchange.method} {path}"


def _comparable(evidence: Evidence | None) -> object:
    if evidence is None:
        return None
    return msgspec.structs.replace(evidence, artifacts=tuple(artifact.type for artifact in evidence.artifacts))


def _named(evidence: Evidence | None) -> str:
    return "pending" if evidence is None else Standing(evidence.standing).name


CHECKS = (
    unfinished_is_pending,
    approval_is_approved,
    decline_is_rejected,
    review_is_review,
    leaving_decides_nothing,
    manual_decisions_count,
    unknown_status_never_approves,
    unknown_status_is_not_repeated,
    fetch_can_be_repeated,
    results_have_the_declared_types,
    times_have_zones,
    whole_aadhaar_numbers_stay_inside,
)
