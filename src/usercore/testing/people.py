"""People that do not exist, whose values are found again wherever they turn up."""

import re
from datetime import date

import msgspec

from usercore.pii.aadhaar import has_check_digit
from usercore.plugins.vendor import Address, BankAccount, Person, ProfileField

WORD = "quenby"
"""In every name and address: no vendor has this word in a constant of its own."""


def person(number: int = 0) -> Person:
    """The person with this number, from 0 to 25; no two have a value in common but the city."""
    letter = chr(ord("a") + number)
    return Person(
        first_name=f"Quenby{letter}x",
        last_name=f"Zorvath{letter}x",
        date_of_birth=date(1951 + number, 3, 17),
        pan_number=f"QXZP{letter.upper()}{7301 + number}W",
        address=Address(
            line1=f"{701 + number} Quenby{letter} Lane", city="Pune", state="Maharashtra", pin_code="411001"
        ),
        phone=f"+9198765{43000 + number}",
        email=f"quenby{letter}@zorvath.example",
    )


def bank_account(number: int = 0) -> BankAccount:
    """The account of the person with this number; sandboxes may take one with a round end for a special case."""
    return BankAccount(account_number=str(501239007301 + number), ifsc="KKBK0008066")


def aadhaar_number(number: int = 0) -> str:
    """A whole one with a check digit that is right, of the person with this number."""
    first = f"73{number:02}5518264"
    return next(first + digit for digit in "0123456789" if has_check_digit(first + digit))


def only(someone: Person, fields: frozenset[ProfileField]) -> Person:
    """With these fields, and None for the others."""
    return Person(**{field: getattr(someone, field) for field in fields})


def without(someone: Person, field: ProfileField) -> Person:
    return msgspec.structs.replace(someone, **{field: None})


def seen(text: str, number: int = 0) -> set[str]:
    """Which values of a person stand in a text, by field; `aadhaar_number` and `account_number` are among them."""
    someone = person(number)
    text = text.lower()
    values = {
        "first_name": someone.first_name,
        "last_name": someone.last_name,
        "pan_number": someone.pan_number,
        # Some vendors want it without the country.
        "phone": (someone.phone or "").removeprefix("+91"),
        "email": someone.email,
        "address": someone.address and someone.address.line1,
        "account_number": bank_account(number).account_number,
        "aadhaar_number": aadhaar_number(number),
    }
    found = {field for field, value in values.items() if value and value.lower() in text}
    if someone.date_of_birth is not None and re.search(_birth(someone.date_of_birth), text):
        found.add("date_of_birth")
    return found


def _birth(day: date) -> str:
    """A date as vendors write it: year first, day first, month first, in words, with or without separators."""
    year, number, month = day.year, rf"0?{day.day}", rf"(?:0?{day.month}|{day:%b}[a-z]*)".lower()
    gap = r"[-/. ]?"
    orders = ((str(year), month, number), (number, month, str(year)), (month, number, str(year)))
    return "|".join(rf"(?<!\d){gap.join(order)}(?!\d)" for order in orders)
