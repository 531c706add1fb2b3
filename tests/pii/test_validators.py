"""What a value has to look like: canonical forms, refusals, and no refusal that repeats the value."""

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usercore.pii import validators
from usercore.pii.validators import Invalid

Validator = Callable[[str], str]
TODAY = date(2026, 2, 28)

GOOD: list[tuple[Validator, str]] = [
    (validators.pan, "ABCPE1234F"),
    (validators.mobile, "+919876543210"),
    (validators.pin_code, "411001"),
    (validators.aadhaar_last4, "0123"),
    (validators.date_of_birth, "1990-12-31"),
    (validators.person_name, "Asha"),
    (validators.address_line, "12, MG Road"),
    (validators.country, "IN"),
    (validators.avatar_url, "https://cdn.example.in/a.png"),
    (validators.free_text, "As agreed on the phone."),
]
every_validator = pytest.mark.parametrize(
    ("validator", "good"), GOOD, ids=[validator.__name__ for validator, _ in GOOD]
)


def code(validator: Validator, value: str) -> str:
    with pytest.raises(Invalid) as refusal:
        validator(value)
    assert refusal.value.detail.endswith(".")
    return refusal.value.code


@every_validator
def test_canonical_forms_stay_as_they_are(validator: Validator, good: str):
    assert validator(good) == good


@every_validator
@pytest.mark.parametrize("edge", ["\n", "\r", "\t", "\0", "\x85", "\u2028", "\ufeff", "\u202e", "\ud800"])
def test_no_control_character_at_either_end(validator: Validator, good: str, edge: str):
    if validator is validators.free_text and edge == "\n":
        assert validator(good + edge) == good
        return
    code(validator, good + edge)
    code(validator, edge + good)


@every_validator
def test_digits_of_other_scripts_are_no_digits(validator: Validator, good: str):
    for zero in "०０٠𝟎":
        other = good.translate({ord(digit): chr(ord(zero) + int(digit)) for digit in "0123456789"})
        if other != good and validator not in (validators.address_line, validators.avatar_url):
            code(validator, other)
    assert validators.address_line("१२, एमजी रोड") == "१२, एमजी रोड"


SENTENCES: dict[Validator, set[str]] = {}


@every_validator
@given(value=st.text(max_size=40))
def test_any_text_is_accepted_or_refused_and_never_repeated(validator: Validator, good: str, value: str):
    refusal: Invalid | None = None
    try:
        assert validator(canonical := validator(value)) == canonical
    except Invalid as error:
        refusal = error
    if refusal is not None:
        # A few fixed sentences: one that repeated the value would be another one each time.
        sentences = SENTENCES.setdefault(validator, set())
        sentences.add(f"{refusal} {refusal.code} {refusal.detail} {refusal!r}")
        assert len(sentences) < 10


@every_validator
def test_nothing_is_not_a_value(validator: Validator, good: str):
    code(validator, "")
    code(validator, " ")


@pytest.mark.parametrize(
    "value",
    ["ABCCE1234F", "abcpe1234f", "ABCPE1234", "ABCPE12345", "ABCPE1234FF", " ABCPE1234F", "ABCP11234F", "ÀBCPE1234F"],
)
def test_pan_refused(value: str):
    assert code(validators.pan, value) == "pan_format"


@pytest.mark.parametrize(
    "value",
    ["9876543210", "09876543210", "919876543210", "+91 98765 43210", "+91-98765-43210", "98765 43210", "91 9876543210"],
)
def test_mobile_canonicalised(value: str):
    assert validators.mobile(value) == "+919876543210"


def test_a_mobile_may_start_with_the_country_code():
    assert validators.mobile("9198765432") == "+919198765432"


@pytest.mark.parametrize(
    "value",
    [
        "5876543210",
        "987654321",
        "98765432100",
        "+929876543210",
        "+91 +919876543210",
        "9876543210 ",
        "98765  43210",
        "9876543210-",
        "+9876543210",
        "++919876543210",
        "9_876543210",
        "00919876543210",
    ],
)
def test_mobile_refused(value: str):
    assert code(validators.mobile, value) == "phone_format"


@pytest.mark.parametrize("value", ["011001", "41100", "4110011", "4110 01", "41100a"])
def test_pin_code_refused(value: str):
    assert code(validators.pin_code, value) == "pin_code_format"


@pytest.mark.parametrize("value", ["123", "12345", "12 4", "1_23", "+123", "-123"])
def test_aadhaar_last4_refused(value: str):
    assert code(validators.aadhaar_last4, value) == "aadhaar_last4_format"


@pytest.mark.parametrize("value", ["2008-02-28", "2000-02-29", "1900-01-01"])
def test_old_enough(value: str):
    assert validators.date_of_birth(value, today=TODAY) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2008-03-01", "under_age"),
        ("2026-02-28", "under_age"),
        ("2026-03-01", "date_of_birth_range"),
        ("1899-12-31", "date_of_birth_range"),
        ("0000-01-01", "date_format"),
        ("1999-02-29", "date_format"),
        ("1999-13-01", "date_format"),
        ("19990101", "date_format"),
        ("1999-W01-1", "date_format"),
        ("1999-01-01T00:00", "date_format"),
        ("01-01-1999", "date_format"),
    ],
)
def test_date_of_birth_refused(value: str, expected: str):
    assert code(lambda text: validators.date_of_birth(text, today=TODAY), value) == expected


def test_born_on_29_february_comes_of_age_on_1_march():
    born = "2008-02-29"
    assert code(lambda text: validators.date_of_birth(text, today=date(2026, 2, 28)), born) == "under_age"
    assert validators.date_of_birth(born, today=date(2026, 3, 1)) == born


@given(st.dates(date(1900, 1, 1), date(2008, 2, 28)))
def test_every_date_of_an_adult(born: date):
    assert validators.date_of_birth(born.isoformat(), today=TODAY) == born.isoformat()


@pytest.mark.parametrize(
    "value",
    [
        "A",
        "Mary-Ann O'Neil",
        "D’Souza",
        "K. R. Narayanan",
        "आशा",
        "ஆஷா",
        "ആശാ",
        "রহিম",
        "José",
        "A" * 100,
        "\u0d28\u0d4d\u200d",  # Malayalam NA, virama, zero width joiner: one letter
    ],
)
def test_person_names(value: str):
    assert validators.person_name(value) == value


def test_person_names_are_tidied():
    assert validators.person_name("  Asha   Rao ") == "Asha Rao"
    assert validators.person_name("Jose\u0301") == "José"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("A" * 101, "name_length"),
        ("Asha1", "name_characters"),
        ("A@b", "name_characters"),
        (".Asha", "name_characters"),
        ("\u0301sha", "name_characters"),
        ("<b>Asha</b>", "name_characters"),
        ("A\u202eB", "name_characters"),
        ("-", "name_characters"),
        ("Asha😀", "name_characters"),
        ("A\nB", "name_characters"),
        ("A\u00a0B", "name_characters"),
    ],
)
def test_person_names_refused(value: str, expected: str):
    assert code(validators.person_name, value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x" * 201, "address_length"),
        ("A\u0000B", "text_characters"),
        ("A\nB", "text_characters"),
        ("A\u202eB", "text_characters"),
        ("A\u2029B", "text_characters"),
        ("-", "address_characters"),
        ("C/o 2341 2341 2346", "aadhaar_number"),
        ("२३४१२३४१२३४६", "aadhaar_number"),
    ],
)
def test_address_lines_refused(value: str, expected: str):
    assert code(validators.address_line, value) == expected


@pytest.mark.parametrize("value", ["Plot #12/3-B, 2nd Floor", "Flat 1001, 411001", "फ्लैट १२", "12"])
def test_address_lines(value: str):
    assert validators.address_line(value) == value


@pytest.mark.parametrize("value", ["in", "IND", "XX", "UK", "EU", "AN", "I"])
def test_countries_refused(value: str):
    assert code(validators.country, value) == "country_code"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("http://example.in/a", "url_scheme"),
        ("javascript:alert(1)", "url_scheme"),
        ("data:image/png;base64,AAAA", "url_scheme"),
        ("//example.in/a", "url_scheme"),
        ("https:///a", "url_format"),
        ("https://", "url_format"),
        ("https:example.in", "url_format"),
        ("https://user:secret@example.in/a", "url_credentials"),
        ("https://user@example.in/a", "url_credentials"),
        ("https://@example.in/a", "url_credentials"),
        ("https://example.in\\@evil.in/a", "url_format"),
        ("https://exam ple.in/a", "url_format"),
        ("https://example.in/ä", "url_format"),
        ("https://exa\tmple.in/a", "url_format"),
        ("https://example.in:99999/a", "url_format"),
        ("https://example.in:0/a", "url_format"),
        ("https://example.in:x/a", "url_format"),
        ("https://[::1/a", "url_format"),
        ("https://example.in/" + "a" * 2030, "url_length"),
    ],
)
def test_avatar_urls_refused(value: str, expected: str):
    assert code(validators.avatar_url, value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "https://example.in/a?b=c#d",
        "HTTPS://EXAMPLE.in",
        "https://example.in:8443/a",
        "https://[2001:db8::1]/a",
        "https://example.in/" + "a" * 2029,
    ],
)
def test_avatar_urls(value: str):
    assert validators.avatar_url(value) == value


def test_free_text():
    assert validators.free_text(" Called twice.\nNo answer. \n") == "Called twice.\nNo answer."
    assert code(validators.free_text, "x" * 2001) == "text_length"
    assert code(lambda text: validators.free_text(text, longest=5), "123456") == "text_length"
    assert code(validators.free_text, "He said\n2341 2341\n2346") == "aadhaar_number"
    assert code(validators.free_text, "a\rb") == "text_characters"


@given(st.from_regex(r"[6-9][0-9]{9}", fullmatch=True))
def test_every_mobile_in_every_spelling(number: str):
    spellings = [number, f"0{number}", f"91{number}", f"+91{number}", f"+91 {number[:5]} {number[5:]}", f"+91-{number}"]
    assert {validators.mobile(spelling) for spelling in spellings} == {f"+91{number}"}
