"""What is kept of an erased person, for how long and by which rule; pure.

Periods count in calendar years from the day in India on which the account was closed; a day is kept to its end.
"""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Literal

from msgspec import Struct

from usercore.pii.classification import REGISTRY, RetentionClass
from usercore.pii.validators import INDIA

CLASSES: tuple[RetentionClass, ...] = ("identity", "contact", "kyc_evidence")


class Rule(Struct, frozen=True):
    """`years` from the closing; 0 keeps nothing."""

    years: int
    name: str


RULES: Mapping[RetentionClass, Rule] = {
    "identity": Rule(8, "SEBI (Stock Brokers) Regulations: books and records, eight years"),
    "contact": Rule(0, "no rule keeps it"),
    "kyc_evidence": Rule(5, "PMLA 2002, section 12: identity records, five years after the relationship ended"),
}
"""Of an account that had a KYC case; one without keeps nothing of these classes."""

PSEUDONYMOUS: Mapping[str, str] = {
    "user_consents": "DPDP Act 2023, section 6(10): proof of consent; ids only, no address",
    "user_audit": "DPDP Rules 2025, rule 6(1)(e): logs, at least one year; values are gone with their keys",
}
"""Tables that stay with the user's id alone, each with its rule. What else stays has nothing personal in it."""

SHORT_LIVED: Mapping[str, str] = {
    "idempotency_keys": "no rule keeps it",
    "webhook_inbox": "goes with the key of its day, within a week",
}
"""Tables that nothing is kept of, however long its class is."""


class PlanItem(Struct, frozen=True):
    """What becomes of one place; `until` is None for what goes now and for what stays without an end."""

    store: str
    column: str
    retention_class: str | None
    action: Literal["erase", "keep"]
    until: datetime | None
    rule: str


def keep_until(
    retention: RetentionClass, closed_at: datetime, *, had_case: bool, periods: Mapping[str, timedelta]
) -> datetime | None:
    """When this class falls due; None when it goes at once. `periods` are those of the settings, which go first."""
    if not had_case:
        return None
    closed_on = closed_at.astimezone(INDIA).date()
    if (period := periods.get(retention)) is not None:
        last = closed_on + period
    else:
        last = _years_later(closed_on, RULES[retention].years)
    return None if last <= closed_on else datetime.combine(last + timedelta(days=1), time(), INDIA)


def rule_of(retention: RetentionClass, periods: Mapping[str, timedelta]) -> str:
    if (period := periods.get(retention)) is not None:
        return f"RETENTION_{retention.upper()}: {period.days} days"
    return RULES[retention].name


def longest(retention: RetentionClass, periods: Mapping[str, timedelta]) -> timedelta:
    """No account that was closed longer ago has anything of this class kept."""
    years = timedelta(days=RULES[retention].years * 366 + 1)
    return periods.get(retention, years) + timedelta(days=1)


def plan(kept: Mapping[RetentionClass, datetime | None], periods: Mapping[str, timedelta]) -> list[PlanItem]:
    """For every place that has something of the person: the registry's columns, and the stores beside PostgreSQL."""
    items: list[PlanItem] = []
    for (table, column), classified in sorted(REGISTRY.items()):
        if not classified.personal:
            continue
        if table in PSEUDONYMOUS:
            goes = column == "ip_addr"
            rule = "no rule keeps an address" if goes else PSEUDONYMOUS[table]
            action = "erase" if goes else "keep"
            items.append(PlanItem("postgres", f"{table}.{column}", classified.retention, action, None, rule))
        elif classified.retention is not None:
            # Indexes and claims go at once too, with what is clear: nobody searches for an erased person.
            stays = classified.storage == "sealed" and table not in SHORT_LIVED
            until = kept[classified.retention] if stays else None
            goes_by = SHORT_LIVED.get(table, "no rule keeps it")
            items.append(_item("postgres", f"{table}.{column}", classified.retention, until, periods, goes_by))
    items.append(PlanItem("redis", "user:rate:*", None, "erase", None, "counters of an id, gone within an hour"))
    items.append(_item("artifacts", "kyc/*", "kyc_evidence", kept["kyc_evidence"], periods))
    return items


def _item(
    store: str,
    column: str,
    retention: RetentionClass,
    until: datetime | None,
    periods: Mapping[str, timedelta],
    goes_by: str = "no rule keeps it",
) -> PlanItem:
    if until is None:
        return PlanItem(store, column, retention, "erase", None, goes_by)
    return PlanItem(store, column, retention, "keep", until, rule_of(retention, periods))


def _years_later(day: date, years: int) -> date:
    """29 February becomes 1 March: rather a day too long than one too short."""
    try:
        return day.replace(year=day.year + years)
    except ValueError:
        return date(day.year + years, 3, 1)
