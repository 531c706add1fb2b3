"""The lattice: one outcome for one set of evidence, whatever order it came in and however often."""

import itertools
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.events import KycCaseStatus, KycTier
from usercore.kyc.cases import (
    LEVELS,
    TIERS,
    Decision,
    Outcome,
    ReviewReason,
    Ruling,
    Said,
    check_status,
    derive,
    next_tier,
    tier_of,
    user_status,
)
from usercore.plugins import Check, RejectionCode, Standing

AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
RULES: dict[KycTier, frozenset[Check]] = {
    "tier_1": frozenset({"pan", "selfie"}),
    "tier_2": frozenset({"aadhaar", "address"}),
    "tier_3": frozenset({"bank"}),
}
codes = st.sampled_from([None, *get_args(RejectionCode)])
said = st.builds(
    Said,
    standing=st.sampled_from(Standing),
    rejection_code=codes,
    received_at=st.integers(-5, 5).map(lambda minutes: AT + timedelta(minutes=minutes)),
    superseded=st.booleans(),
)


def says(*standings: Standing, superseded: bool = False) -> list[Said]:
    return [Said(standing, None, AT, superseded) for standing in standings]


S = Standing


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        ([], Outcome("initiated")),
        ([S.STARTED], Outcome("initiated")),
        ([S.SUBMITTED], Outcome("documents_submitted")),
        ([S.SUBMITTED, S.STARTED], Outcome("documents_submitted")),
        ([S.REVIEW, S.SUBMITTED], Outcome("in_review", review_reason="vendor_review")),
        ([S.APPROVED, S.SUBMITTED, S.REVIEW], Outcome("approved")),
        ([S.APPROVED, S.STARTED], Outcome("approved")),
        ([S.APPROVED, S.REJECTED], Outcome("rejected", "vendor_declined")),
        ([S.REJECTED, S.MANUALLY_APPROVED], Outcome("approved")),
        ([S.APPROVED, S.MANUALLY_REJECTED], Outcome("rejected", "vendor_declined")),
        ([S.MANUALLY_APPROVED, S.MANUALLY_REJECTED], Outcome("rejected", "vendor_declined")),
        ([S.MANUALLY_APPROVED, S.FRAUD], Outcome("rejected", "fraud")),
    ],
)
def test_the_highest_counts(standings: Sequence[Standing], expected: Outcome) -> None:
    for order in itertools.permutations(standings):
        assert derive(says(*order)) == expected
        assert derive(says(*order, *order)) == expected


def test_every_permutation_of_six_with_duplicates_comes_to_one_outcome() -> None:
    for chosen in itertools.combinations(Standing, 6):
        for order in itertools.permutations(chosen):
            assert derive(says(*order, order[0], order[-1])) == derive(says(*chosen))


def test_long_random_histories() -> None:
    """10**5 of them: shuffled, repeated and cut in two, each comes to what it came to before."""
    dice = random.Random(4)
    every = [Said(standing, code, AT) for standing in Standing for code in (None, "fraud", "face_mismatch")]
    for _ in range(100_000):
        history = dice.choices(every, k=dice.randint(7, 12))
        expected = derive(history)
        dice.shuffle(history)
        assert derive(history + history[: dice.randint(0, 7)]) == expected


@given(st.lists(said, max_size=8), st.randoms(), st.sampled_from([None, *get_args(ReviewReason)]))
def test_no_order_and_no_repetition_matters(history: list[Said], dice: random.Random, identity: ReviewReason) -> None:
    expected = derive(history, identity=identity)
    shuffled = history + history[:3]
    dice.shuffle(shuffled)
    assert derive(shuffled, identity=identity) == expected
    if expected.status == "approved":
        assert identity is None
        assert any(each.standing in (S.APPROVED, S.MANUALLY_APPROVED) and not each.superseded for each in history)


@given(st.lists(said, max_size=8), st.sampled_from(get_args(Decision)), codes)
def test_our_own_decision_stands_but_for_fraud_that_comes_after_it(
    history: list[Said], decision: Decision, code: RejectionCode | None
) -> None:
    ruled = derive(history, ruling=Ruling(decision, code, AT))
    if any(each.standing is S.FRAUD and each.received_at > AT for each in history):
        assert ruled == Outcome("rejected", "fraud")
    else:
        assert ruled == (Outcome("approved") if decision == "approve" else Outcome("rejected", code or "manual"))


@given(st.lists(said, max_size=8))
def test_an_ended_case_stays_ended(history: list[Said]) -> None:
    assert derive(history, ended="account_closed") == Outcome("expired", "account_closed")
    fraud = any(each.standing is S.FRAUD for each in history)
    assert derive(history, ended="expired") == (Outcome("rejected", "fraud") if fraud else Outcome("expired"))


def test_a_superseded_attempt_may_report_fraud_and_nothing_else() -> None:
    assert derive(says(S.MANUALLY_APPROVED, superseded=True)) == Outcome("initiated")
    assert derive(says(S.MANUALLY_REJECTED, superseded=True) + says(S.APPROVED)) == Outcome("approved")
    assert derive(says(S.FRAUD, superseded=True) + says(S.APPROVED)) == Outcome("rejected", "fraud")


def test_only_an_approved_case_passes_its_checks() -> None:
    statuses = {status: check_status(Outcome(status)) for status in get_args(KycCaseStatus)}
    assert [status for status, check in statuses.items() if check == "passed"] == ["approved"]


def test_tiers_are_reached_one_after_the_other() -> None:
    assert tier_of(["aadhaar", "address", "bank"], RULES) == "tier_0"
    assert tier_of(["pan", "selfie", "bank"], RULES) == "tier_1"
    assert tier_of(["pan", "selfie", "address", "aadhaar"], RULES) == "tier_2"
    assert tier_of(["pan", "selfie", "address", "aadhaar", "bank"], RULES) == "tier_3"
    assert [next_tier(tier) for tier in TIERS] == ["tier_1", "tier_2", "tier_3", None]
    assert LEVELS == {"tier_0": "view_only", "tier_1": "basic", "tier_2": "enhanced", "tier_3": "maximum"}


def test_a_tier_is_worth_more_than_the_latest_case() -> None:
    for latest in get_args(KycCaseStatus):
        assert user_status("tier_1", latest) == "approved"
    assert user_status("tier_0", None) == "not_started"
    assert user_status("tier_0", "documents_submitted") == "pending"
    assert user_status("tier_0", "approved") == "expired"
