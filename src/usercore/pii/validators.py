"""What a personal value has to look like. Each function answers the canonical form, or raises `Invalid`."""

import re
import unicodedata
from datetime import date, datetime
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from usercore.errors import FieldError, UsercoreError, ValidationFailed
from usercore.pii import aadhaar

INDIA = ZoneInfo("Asia/Kolkata")  # a person comes of age at midnight there, wherever the server is
ADULT_YEARS = 18
EARLIEST_BIRTH = date(1900, 1, 1)
LONGEST_NAME = 100
LONGEST_ADDRESS_LINE = 200
LONGEST_URL = 2048
LONGEST_FREE_TEXT = 2000

# fullmatch and [0-9] throughout: `$` lets a newline pass, \d lets every script's digits pass.
_PAN = re.compile(r"[A-Z]{3}P[A-Z][0-9]{4}[A-Z]")  # the fourth letter P is an individual
_MOBILE = re.compile(r"(?:\+?91[ -]?|0)?([6-9](?:[ -]?[0-9]){9})")
_PIN_CODE = re.compile(r"[1-9][0-9]{5}")
_FOUR_DIGITS = re.compile(r"[0-9]{4}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SPACES = re.compile(r" {2,}")
_VISIBLE_ASCII = re.compile(r"[!-~]+")
_JOINERS = "\u200c\u200d"  # they shape letters in several Indian scripts, and are no letters
_NAME_PUNCTUATION = " .'’-" + _JOINERS

# ISO 3166-1 alpha-2, officially assigned.
_COUNTRY_CODES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ "
    "CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO "
    "FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE "
    "JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO "
    "MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW "
    "PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM "
    "TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
)
_COUNTRIES = frozenset(_COUNTRY_CODES.split())


class Invalid(UsercoreError):
    """A value is not acceptable. Neither part ever holds the value."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail


def pan(value: str) -> str:
    if not _PAN.fullmatch(value):
        raise Invalid("pan_format", "A PAN of an individual is five capitals, the fourth P, four digits and a capital.")
    return value


def mobile(value: str) -> str:
    """E.164: +91 and ten digits. Spaces and hyphens between them and the prefixes 0, 91 and none are understood."""
    match = _MOBILE.fullmatch(value)
    if match is None:
        raise Invalid("phone_format", "An Indian mobile number is +91 and ten digits, the first of them 6 to 9.")
    return "+91" + match[1].replace(" ", "").replace("-", "")


def pin_code(value: str) -> str:
    if not _PIN_CODE.fullmatch(value):
        raise Invalid("pin_code_format", "A PIN code has six digits and does not start with 0.")
    return value


def aadhaar_last4(value: str) -> str:
    if not _FOUR_DIGITS.fullmatch(value):
        raise Invalid("aadhaar_last4_format", "Give the last four digits of the Aadhaar number and no others.")
    return value


def date_of_birth(value: str, *, today: date | None = None) -> str:
    """`today` is the date in India. Who was born on 29 February comes of age on 1 March."""
    born = _real_date(value)
    now = today or datetime.now(INDIA).date()
    if born < EARLIEST_BIRTH or born > now:
        raise Invalid("date_of_birth_range", "The date lies before 1900 or in the future.")
    if now.year - born.year - ((now.month, now.day) < (born.month, born.day)) < ADULT_YEARS:
        raise Invalid("under_age", "The account holder must be 18 or older.")
    return value


def person_name(value: str) -> str:
    """NFC, single spaces: letters and marks of any script with the punctuation that names have."""
    name = _tidy(value)
    if not name or len(name) > LONGEST_NAME:
        raise Invalid("name_length", f"A name has 1 to {LONGEST_NAME} characters.")
    if not all(character in _NAME_PUNCTUATION or unicodedata.category(character)[0] in "LM" for character in name):
        raise Invalid("name_characters", "A name consists of letters, spaces, dots, apostrophes and hyphens.")
    if not unicodedata.category(name[0]).startswith("L"):
        raise Invalid("name_characters", "A name starts with a letter.")
    return name


def address_line(value: str) -> str:
    """line1, line2, city, state: one line of text with a letter or a digit in it, without an Aadhaar number."""
    line = _tidy(value)
    if not line or len(line) > LONGEST_ADDRESS_LINE:
        raise Invalid("address_length", f"A part of an address has 1 to {LONGEST_ADDRESS_LINE} characters.")
    _refuse_unprintable(line, allowed=_JOINERS)
    if not any(unicodedata.category(character)[0] in "LN" for character in line):
        raise Invalid("address_characters", "A part of an address holds letters or digits.")
    _refuse_aadhaar(line)
    return line


def country(value: str) -> str:
    if value not in _COUNTRIES:
        raise Invalid("country_code", "A country is two capitals of ISO 3166-1, such as IN.")
    return value


def avatar_url(value: str) -> str:
    """https, a host, no credentials. Nothing is fetched, so where the host points does not matter here."""
    if len(value) > LONGEST_URL:
        raise Invalid("url_length", f"A URL has at most {LONGEST_URL} characters.")
    # urlsplit drops tabs and newlines without a word, and browsers read a backslash as a slash.
    if not _VISIBLE_ASCII.fullmatch(value) or "\\" in value:
        raise Invalid("url_format", "This is not a URL; other characters have to be percent-encoded.")
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise Invalid("url_format", "This is not a URL.") from None
    if parts.scheme != "https":
        raise Invalid("url_scheme", "The URL has to start with https://.")
    if "@" in parts.netloc:
        raise Invalid("url_credentials", "The URL must not hold a user name or a password.")
    if not host or port == 0:
        raise Invalid("url_format", "The URL names no host.")
    return value


def free_text(value: str, *, longest: int = LONGEST_FREE_TEXT) -> str:
    """A note of several lines at most, without an Aadhaar number."""
    text = unicodedata.normalize("NFC", value).strip(" \n")
    if not text or len(text) > longest:
        raise Invalid("text_length", f"The text has 1 to {longest} characters.")
    _refuse_unprintable(text, allowed=_JOINERS + "\n")
    _refuse_aadhaar(text)
    return text


def note(reason: str, text: str | None) -> str | None:
    """What somebody wrote beside the reason of a decision; `other` needs it. Raises ValidationFailed."""
    if reason == "other" and not (text or "").strip():
        raise ValidationFailed(errors=[FieldError("/note", "required", "The reason `other` needs a note.")])
    if text is None:
        return None
    try:
        return free_text(text)
    except Invalid as invalid:
        raise ValidationFailed(errors=[FieldError("/note", invalid.code, invalid.detail)]) from None


def _tidy(value: str) -> str:
    return _SPACES.sub(" ", unicodedata.normalize("NFC", value)).strip(" ")


def _real_date(value: str) -> date:
    try:
        if _DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise Invalid("date_format", "A date is YYYY-MM-DD and exists.")


def _refuse_unprintable(text: str, *, allowed: str) -> None:
    # C: controls, bidirectional overrides, surrogates, unassigned. Z but the space: line and paragraph separators.
    for character in text:
        category = unicodedata.category(character)
        if character not in allowed and (category[0] == "C" or category in ("Zl", "Zp")):
            raise Invalid("text_characters", "The text holds control characters.")


def _refuse_aadhaar(text: str) -> None:
    if aadhaar.contains(text):
        raise Invalid("aadhaar_number", "Do not write a whole Aadhaar number here.")
