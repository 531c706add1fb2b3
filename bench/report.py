"""What a benchmark found, and the table that shows it."""

from collections.abc import Sequence
from statistics import median

import msgspec
from msgspec import Struct


class Result(Struct, frozen=True):
    """One line of the table. `ratio` is to `against`: a rival measured in the same run, or the target itself."""

    bench: str
    what: str
    value: float
    unit: str
    against: str = ""
    ratio: float | None = None
    target: str = ""
    ok: bool | None = None


def compare(
    bench: str, what: str, values: Sequence[float], rival: str, rival_values: Sequence[float], *, at_least: float = 0.0
) -> Result:
    """Rounds of requests a second against a rival's rounds, which alternated with them: the median of the ratios.

    Without `at_least` it is shown and not judged.
    """
    ratio = median(ours / theirs for ours, theirs in zip(values, rival_values, strict=True))
    against = f"{median(rival_values):,.0f} {rival}"
    target, ok = (f">= {at_least:g}", ratio >= at_least) if at_least else ("", None)
    return Result(bench, what, median(values), "/s", against, ratio, target, ok)


def cheaper(bench: str, what: str, ours: Sequence[float], rival: str, theirs: Sequence[float]) -> Result:
    """CPU time of the server's process a request, which other programs on the machine change less than rates."""
    ratio = median(rival_s / own_s for own_s, rival_s in zip(ours, theirs, strict=True))
    return Result(bench, what, median(ours), "µs", f"{median(theirs):,.0f} µs {rival}", ratio)


def at_least(bench: str, what: str, value: float, unit: str, target: float) -> Result:
    return Result(bench, what, value, unit, f"{target:,g} {unit}", value / target, f">= {target:,g}", value >= target)


def below(bench: str, what: str, value: float, unit: str, target: float) -> Result:
    return Result(bench, what, value, unit, f"{target:,g} {unit}", value / target, f"< {target:,g}", value < target)


def table(results: Sequence[Result]) -> str:
    rows = [("", "what", "measured", "against", "ratio", "target", "")]
    for result in results:
        verdict = {True: "ok", False: "MISSED", None: ""}[result.ok]
        ratio = "" if result.ratio is None else f"{result.ratio:.2f}"
        rows.append(
            (
                result.bench,
                result.what,
                f"{_number(result.value)} {result.unit}",
                result.against,
                ratio,
                result.target,
                verdict,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_json(results: Sequence[Result]) -> str:
    return msgspec.json.format(msgspec.json.encode(results)).decode()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
