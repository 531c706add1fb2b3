"""The settings of vendors: from <NAME>_<FIELD> in the environment to a plugin's Struct, and back to be shown."""

import re
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import FieldInfo, fields

from usercore.plugins.vendor import VendorSettings, VendorSpec
from usercore.settings import MASK, Settings, printable

SECRET = re.compile("(.*_)?(key|secret|secrets|password|token)")
"""Fields whose values are never shown, by name."""
_SWITCH = {"on": True, "true": True, "1": True, "yes": True, "off": False, "false": False, "0": False, "no": False}


def variable(vendor: str, field: str) -> str:
    return f"{vendor}_{field}".upper()


def variables(spec: VendorSpec[Any]) -> list[str]:
    """Every variable that a vendor reads."""
    return [variable(spec.name, field.name) for field in fields(spec.settings)]


def read(spec: VendorSpec[Any], environ: Mapping[str, str]) -> tuple[VendorSettings | None, list[str]]:
    """A vendor's settings, or what is wrong with them: each problem names its variable and shows no value."""
    values: dict[str, object] = {}
    problems: list[str] = []
    for field in fields(spec.settings):
        name = variable(spec.name, field.name)
        text = environ.get(name, "").strip()
        if not text:
            if field.required:
                problems.append(f"{name} is required while KYC_VENDORS names {spec.name}")
            continue
        try:
            # Constraints of the type (msgspec.Meta) are looked at too.
            values[field.name] = msgspec.convert(_parsed(text, field.type), field.type)
        except _Unreadable:
            problems.append(f"{name} has a type that is not read from the environment: mend the plugin of {spec.name}")
        except (ValueError, msgspec.ValidationError):
            problems.append(f"{name} must be {_expected(field.type)}")
    if problems:
        return None, problems
    try:
        return spec.settings(**values), []
    except Exception as error:
        # Its own checks; their text may hold what they checked.
        prefix = variable(spec.name, "*")
        return None, [f"{prefix} is refused by the plugin of {spec.name}, {type(error).__name__}: see its README"]


def masked(spec: VendorSpec[Any], settings: VendorSettings) -> dict[str, str]:
    """Each variable with its effective value as text, secrets replaced by ***; unset ones are empty."""
    return {variable(spec.name, field.name): _shown(field, getattr(settings, field.name)) for field in fields(settings)}


def clashes(specs: Sequence[VendorSpec[Any]]) -> list[str]:
    """Variables that two read, or a vendor and the service: a secret of one would be the other's."""
    owners = {field.name.upper(): "the service" for field in fields(Settings)}
    problems: list[str] = []
    for spec in specs:
        for name in variables(spec):
            owner = owners.setdefault(name, spec.name)
            if owner != spec.name:
                problems.append(f"{name} would be read by {spec.name} and by {owner}: rename a field in the plugin")
    return problems


def is_address(text: str, *, production: bool) -> bool:
    """Whether a vendor can be reached there: https, in dev http as well, and no credentials in it."""
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError:
        return False
    good = parts.scheme == "https" or (parts.scheme == "http" and not production)
    return good and bool(host) and "@" not in parts.netloc and not re.search(r"\s", text)


class _Unreadable(Exception):
    """A type that has no text form."""


def _bare(type_: object) -> object:
    """The type without None and without annotations."""
    if get_origin(type_) is Annotated:
        return _bare(get_args(type_)[0])
    if get_origin(type_) in (Union, types.UnionType):
        others = [each for each in get_args(type_) if each is not types.NoneType]
        return _bare(others[0]) if len(others) == 1 else type_
    return type_


def _parsed(text: str, type_: object) -> object:
    bare = _bare(type_)
    if bare is str:
        return text
    if bare is bool:
        if text.lower() not in _SWITCH:
            raise ValueError
        return _SWITCH[text.lower()]
    if bare is int:
        # int() takes 1_000, Devanagari digits and spaces.
        return int(_match("-?[0-9]{1,18}", text))
    if bare is float:
        return float(_match(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", text))
    if get_origin(bare) is Literal and all(isinstance(option, str) for option in get_args(bare)):
        return text
    if get_origin(bare) is tuple and get_args(bare) == (str, ...):
        return tuple(item.strip() for item in text.split(",") if item.strip())
    raise _Unreadable


def _match(pattern: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError
    return text


def _expected(type_: object) -> str:
    bare = _bare(type_)
    if get_origin(bare) is Literal:
        return f"one of {', '.join(cast('tuple[str, ...]', get_args(bare)))}"
    words: dict[object, str] = {bool: "on or off", int: "a whole number", float: "a number", str: "a text"}
    word = words.get(bare, "a list, separated by commas")
    return f"{word} as the plugin's README says" if get_origin(type_) is Annotated else word


def _shown(field: FieldInfo, value: object) -> str:
    if SECRET.fullmatch(field.name):
        return MASK if value else ""
    return printable(value)
