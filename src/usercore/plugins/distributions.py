"""Plugins as they are installed: from a vendor's name in KYC_VENDORS to the spec that its plugin gives."""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, distributions
from typing import Any, cast, get_args

import pluggy
from msgspec import Struct
from msgspec.structs import fields

from usercore.logs import described, logger
from usercore.plugins.vendor import (
    API_VERSION,
    ENTRY_POINTS,
    PROJECT,
    Check,
    Hooks,
    Operation,
    ProfileField,
    VendorSettings,
    VendorSpec,
    WebhookScheme,
)

HOOK = "usercore_kyc_vendors"
_NAME = re.compile("[a-z][a-z0-9_]{0,62}")
_HEADER = re.compile("[a-z0-9][a-z0-9-]{0,62}")

log = logger(__name__)


class Installed(Struct, frozen=True, kw_only=True):
    """A vendor of a plugin that is installed and whole."""

    spec: VendorSpec[Any]
    distribution: str
    version: str
    source: str
    """What the entry point names: a module, or an object in one."""


class Refused(Exception):
    """What is wrong with a plugin and what to do, without a value of its or of the environment."""


def entry_points() -> dict[str, list[EntryPoint]]:
    """The entry points of our group by name, of whatever is on the path; nothing is imported.

    A distribution whose metadata cannot be read has none: it must not harm the others.
    """
    found: dict[str, list[EntryPoint]] = {}
    seen: set[str] = set()
    for distribution in distributions():
        try:
            ours = [point for point in distribution.entry_points if point.group == ENTRY_POINTS]
            name = re.sub("[-_.]+", "-", distribution.name).lower() if ours else ""
        except Exception as error:
            log.debug("distribution_unreadable", error=type(error).__name__)
            continue
        if ours and name not in seen:
            # One that comes twice on the path is imported from where it comes first.
            seen.add(name)
            for point in ours:
                found.setdefault(point.name, []).append(point)
    return found


def find(names: Sequence[str]) -> tuple[list[Installed], list[str]]:
    """The vendors with these names in this order, and what is wrong with the others: a sentence each.

    A vendor is found by an entry point with its name. Only those are imported, each by itself: what else is installed
    may be as broken as it likes. A plugin with several vendors has an entry point for each, all to the same module.
    """
    points = entry_points()
    vendors: list[Installed] = []
    problems: list[str] = []
    givers: dict[str, set[str]] = {}
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problems.append(f"KYC_VENDORS names {name} twice: take one of them out")
        try:
            point = _only(name, points.get(name, []))
            specs = _specs(name, point)
            for given in specs:
                givers.setdefault(given.name, set()).add(_described(point))
            vendors.append(_chosen(name, point, specs))
        except Refused as refused:
            problems.append(str(refused))
    for name, by in sorted(givers.items()):
        if len(by) > 1:
            problems.append(
                f"KYC_VENDORS names plugins of which several give {name}, {_and(by)}: uninstall all but one"
            )
            vendors = [vendor for vendor in vendors if vendor.spec.name != name]
    return vendors, problems


def _only(name: str, points: Sequence[EntryPoint]) -> EntryPoint:
    if not points:
        raise Refused(
            f"KYC_VENDORS names {name}, which is not installed: install the distribution that has the entry point "
            f"{name} in the group {ENTRY_POINTS}, or take {name} out of KYC_VENDORS"
        )
    if len(points) > 1:
        by = _and(_owner(point)[0] for point in points)
        raise Refused(f"KYC_VENDORS names {name}, which is installed twice, by {by}: uninstall all but one")
    return points[0]


def _specs(name: str, point: EntryPoint) -> list[VendorSpec[Any]]:
    """What the plugin behind an entry point gives, each of the right version and with fields of the right types."""
    plugin = _imported(name, point)
    owner = _owner(point)[0]
    # A manager for each: what it complains about is this plugin.
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    try:
        manager.register(plugin, name)
        hooks = [hook.name for hook in manager.get_hookcallers(plugin) or ()]
        misspelled = [hook for hook in hooks if hook != HOOK]
        manager.check_pending()
    except pluggy.PluginValidationError:
        misspelled = [hook for hook in vars(manager.hook) if hook != HOOK and not hook.startswith("_")]
        if misspelled:
            raise Refused(
                f"KYC_VENDORS names {name}, whose plugin {owner} has a hook {_and(misspelled)}, which does not exist: "
                f"call it {HOOK}"
            ) from None
        raise Refused(
            f"KYC_VENDORS names {name}, whose plugin {owner} has a hook {HOOK} with arguments: it takes none"
        ) from None
    if HOOK not in hooks:
        raise Refused(
            f"KYC_VENDORS names {name}, whose plugin {owner} has no hook: mark its function {HOOK} with @hookimpl"
        )
    try:
        results = cast("list[object]", manager.hook.usercore_kyc_vendors())
        given = [spec for result in results for spec in _each(result)]
    except (Exception, SystemExit) as error:
        log.error("plugin_broken", error, vendor=name)
        raise Refused(
            f"KYC_VENDORS names {name}, whose plugin {owner} fails in its hook with {_where(error)}: mend it, or take "
            f"{name} out of KYC_VENDORS"
        ) from None
    if not given or not all(isinstance(spec, VendorSpec) for spec in given):
        raise Refused(
            f"KYC_VENDORS names {name}, whose plugin {owner} gives something else than VendorSpecs: its hook {HOOK} "
            "has to return a list of them"
        )
    specs = cast("list[VendorSpec[Any]]", given)
    for spec in specs:
        _check_version(name, owner, spec)
        if field := wrong_field(spec):
            raise Refused(
                f"KYC_VENDORS names {name}, whose plugin {owner} gives a VendorSpec with {field} that it cannot have: "
                "see usercore.plugins.VendorSpec, and mend it"
            )
    return specs


def _each(result: object) -> list[object]:
    if inspect.iscoroutine(result):
        # Nobody awaits it; closed, it does not complain.
        result.close()
        return [None]
    return list(cast("Iterable[object]", result)) if isinstance(result, Iterable) else [None]


def _imported(name: str, point: EntryPoint) -> object:
    try:
        return cast("object", point.load())
    except (Exception, SystemExit) as error:
        log.error("plugin_broken", error, vendor=name)
        raise Refused(
            f"KYC_VENDORS names {name}, whose plugin {_owner(point)[0]} cannot be imported, {_where(error)}: mend or "
            f"upgrade it, or take {name} out of KYC_VENDORS"
        ) from None


def _check_version(name: str, owner: str, spec: VendorSpec[Any]) -> None:
    version: object = spec.api_version
    if version != API_VERSION:
        # A version that is no number is not shown: nobody knows what it is.
        written = f"for version {version} of" if type(version) is int else "for no version of"
        what = "usercore" if type(version) is int and version > API_VERSION else "the plugin"
        raise Refused(
            f"KYC_VENDORS names {name}, whose plugin {owner} is written {written} the plugin API, and this is version "
            f"{API_VERSION}: upgrade {what}"
        )


def _chosen(name: str, point: EntryPoint, specs: Sequence[VendorSpec[Any]]) -> Installed:
    owner, version = _owner(point)
    chosen = [spec for spec in specs if spec.name == name]
    if not chosen:
        raise Refused(
            f"KYC_VENDORS names {name}, which the plugin {owner} has an entry point for and does not give: its vendors "
            f"are {_and(spec.name for spec in specs)}"
        )
    if len(chosen) > 1:
        raise Refused(f"KYC_VENDORS names {name}, which the plugin {owner} gives twice: it has to give it once")
    return Installed(spec=chosen[0], distribution=owner, version=version, source=point.value)


def wrong_field(spec: VendorSpec[Any]) -> str | None:
    """The name of a field that has not the type that is declared: a Struct does not look at what it is made of."""
    values = cast("Mapping[str, object]", {name: getattr(spec, name) for name in spec.__struct_fields__})
    for field, pattern in (("name", _NAME), ("webhook_header", _HEADER)):
        value = values[field]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            return field
    closed = {"checks": Check, "discloses": ProfileField, "webhook_schemes": WebhookScheme, "operations": Operation}
    for field, allowed in closed.items():
        value = values[field]
        if not isinstance(value, (frozenset, set)) or not cast("set[object]", value) <= set(get_args(allowed)):
            return field
        if not value and field in ("checks", "webhook_schemes"):
            return field
    if not isinstance(values["title"], str) or not spec.title.strip():
        return "title"
    if not _is_settings(values["settings"]):
        return "settings"
    if not isinstance(values["sandbox"], str | None):
        return "sandbox"
    return None if callable(values["factory"]) else "factory"


def _is_settings(type_: object) -> bool:
    if not isinstance(type_, type) or not issubclass(type_, VendorSettings):
        return False
    try:
        fields(type_)
    except Exception:
        # An annotation that names nothing.
        return False
    return True


def _where(error: BaseException) -> str:
    """The class, and the last line of source that is not the import system's; the message may hold anything."""
    frames = [frame for frame in cast("list[str]", described(error)["frames"]) if not frame.startswith("<")]
    ours = [frame for frame in frames if "usercore/plugins/" not in frame and "importlib/" not in frame]
    return type(error).__name__ + (f" at {ours[-1]}" if ours else "")


def _owner(point: EntryPoint) -> tuple[str, str]:
    """The distribution and its version."""
    return (point.dist.name, point.dist.version or "unknown") if point.dist is not None else ("", "")


def _described(point: EntryPoint) -> str:
    # Two entry points of one distribution to one module are one plugin.
    return f"{_owner(point)[0]} ({point.value})"


def _and(words: Iterable[str]) -> str:
    return " and ".join(sorted(set(words)))
