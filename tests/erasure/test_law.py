"""How long the law keeps what: calendar years in India, leap days and midnights, over twelve years."""

from datetime import UTC, date, datetime, time, timedelta

import pytest

from usercore.erasure.law import CLASSES, RULES, keep_until, longest, plan
from usercore.pii.classification import REGISTRY, RetentionClass
from usercore.pii.validators import INDIA

NONE: dict[str, timedelta] = {}
KEPT: tuple[RetentionClass, ...] = ("identity", "kyc_evidence")


def until(retention: RetentionClass, closed_at: datetime, **periods: timedelta) -> datetime | None:
    return keep_until(retention, closed_at, had_case=True, periods=periods)


@pytest.mark.parametrize(
    ("closed_at", "identity", "evidence"),
    [
        # 23:59 and 00:00 in India are 18:29 and 18:30 UTC of the day before.
        ("2026-03-31T18:29:59+00:00", "2034-04-01", "2031-04-01"),
        ("2026-03-31T18:30:00+00:00", "2034-04-02", "2031-04-02"),
        ("2026-04-01T00:00:00+05:30", "2034-04-02", "2031-04-02"),
        ("2024-02-29T06:00:00+00:00", "2032-03-01", "2029-03-02"),
        ("2028-02-29T06:00:00+00:00", "2036-03-01", "2033-03-02"),
        ("2023-02-28T06:00:00+00:00", "2031-03-01", "2028-02-29"),
        ("2025-12-31T18:29:00+00:00", "2034-01-01", "2031-01-01"),
        ("2025-12-31T18:31:00+00:00", "2034-01-02", "2031-01-02"),
    ],
)
def test_a_day_is_kept_to_its_end_in_india(closed_at: str, identity: str, evidence: str) -> None:
    expected: dict[RetentionClass, str] = {"identity": identity, "kyc_evidence": evidence}
    for retention, day in expected.items():
        assert until(retention, datetime.fromisoformat(closed_at)) == datetime.combine(
            date.fromisoformat(day), time(), INDIA
        )


def test_every_day_of_twelve_years_is_kept_for_whole_years_and_no_day_more() -> None:
    day = date(2024, 1, 1)
    while day < date(2036, 1, 1):
        closed_at = datetime.combine(day, time(12), INDIA)
        for retention in KEPT:
            found = until(retention, closed_at)
            assert found is not None
            last = found.date() - timedelta(days=1)
            assert last.year - day.year == RULES[retention].years
            leap_day_lost = (day.month, day.day, last.day) == (2, 29, 1)
            assert (last.month, last.day) == ((3, 1) if leap_day_lost else (day.month, day.day))
            assert closed_at + longest(retention, NONE) > found
        day += timedelta(days=1)


def test_without_a_case_and_without_a_rule_nothing_is_kept() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert {keep_until(each, at, had_case=False, periods=NONE) for each in CLASSES} == {None}
    assert until("contact", at) is None


def test_a_setting_goes_before_the_law() -> None:
    at = datetime(2026, 1, 1, 12, tzinfo=INDIA)
    assert until("contact", at, contact=timedelta(days=365)) == datetime(2027, 1, 2, tzinfo=INDIA)
    assert until("identity", at, identity=timedelta(0)) is None
    assert longest("identity", {"identity": timedelta(days=10)}) > timedelta(days=10)


def test_the_plan_names_every_personal_column() -> None:
    kept: dict[RetentionClass, datetime | None]
    kept = {each: datetime(2034, 1, 1, tzinfo=INDIA) if each == "identity" else None for each in CLASSES}
    items = {item.column: item for item in plan(kept, NONE)}
    personal = {f"{table}.{column}" for (table, column), each in REGISTRY.items() if each.personal}
    assert personal - items.keys() == set()
    assert items["user_profiles.first_name_enc"].action == "keep"
    assert items["user_profiles.first_name_enc"].rule.startswith("SEBI")
    assert items["user_profiles.pan_number_index"].action == "erase"
    assert items["identity_claims.digest"].action == "erase"
    assert items["user_profiles.phone_enc"].action == "erase"
    assert items["kyc/*"].action == "erase"
    assert items["user_consents.ip_addr"].action == "erase"
