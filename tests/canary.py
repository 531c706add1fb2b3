"""Canaries: values that occur nowhere by chance, and a search for them in every form in which a value can leak."""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote, quote_plus

from msgspec import Struct

SHORT = 8
"""Bytes. What is shorter stands in random data by chance, and counts only where it stands alone."""
GRAM = 7
CHUNK = 1 << 16

_BESIDE = rb"[0-9A-Za-z._:+-]"


class Canary(Struct, frozen=True):
    name: str
    value: str


class Place(Struct, frozen=True):
    """Somewhere to look: a column, a topic's values, a log."""

    store: str
    name: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.store} {self.name}"


class Finding(Struct, frozen=True):
    canary: str
    form: str
    place: str


def forms(value: str) -> dict[str, set[bytes]]:
    """A value as it may stand somewhere, by the name of the form."""
    found: dict[str, set[bytes]] = {}
    for direction, text in (("", value), ("reversed ", value[::-1])):
        cases = {text, text.lower(), text.upper()}
        found[f"{direction}utf-8"] = {case.encode() for case in cases}
        found[f"{direction}hex"] = {case.encode().hex().encode() for case in cases}
        found[f"{direction}JSON"] = {escaped.encode() for case in cases for escaped in _json_escaped(case)}
        found[f"{direction}URL"] = {escaped.encode() for case in cases for escaped in _url_escaped(case)}
        found[f"{direction}base64"] = {part for case in cases for part in _base64(case.encode())}
    return found


def _json_escaped(text: str) -> Iterator[str]:
    for ascii_only in (True, False):
        escaped = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield escaped
        yield escaped.replace("/", "\\/")
    yield "".join(f"\\u{ord(character):04x}" for character in text)


def _url_escaped(text: str) -> Iterator[str]:
    yield from (quote(text, safe=""), quote(text), quote_plus(text))
    yield "".join(f"%{byte:02x}" for byte in text.encode())


def _base64(data: bytes) -> Iterator[bytes]:
    """At each of the three alignments: the characters that do not depend on what stands before and after."""
    for before in range(3):
        for alphabet in (base64.b64encode, base64.urlsafe_b64encode):
            text = alphabet(bytes(before) + data)
            yield text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]


def folded(data: bytes) -> bytes:
    """In small letters, and with one backslash for any number of them: JSON within JSON doubles it at each level."""
    return re.sub(rb"\\+", rb"\\", data.lower())


class Needle(Struct, frozen=True):
    data: bytes
    canary: str
    form: str


class Searcher:
    """Looks for all canaries at once: only where the first bytes of a form stand is the form itself compared."""

    def __init__(self, canaries: Iterable[Canary]) -> None:
        self.canaries = list(canaries)
        self._folded: dict[bytes, set[Needle]] = {}
        self._exact: dict[bytes, set[Needle]] = {}
        self._alone: list[tuple[re.Pattern[bytes], Needle]] = []
        for canary in self.canaries:
            if len(canary.value) >= SHORT:
                self._add(canary.name, forms(canary.value))
            else:
                self._add_short(canary)

    @property
    def needles(self) -> int:
        return len(self._alone) + sum(len(group) for group in (*self._folded.values(), *self._exact.values()))

    def search(self, places: Iterable[Place]) -> list[Finding]:
        """Every canary in every form in which it stands in every place, each once."""
        return list(
            dict.fromkeys(
                Finding(needle.canary, needle.form, str(place)) for place in places for needle in self._in(place.data)
            )
        )

    def _add(self, canary: str, found: Mapping[str, set[bytes]]) -> None:
        for form, values in found.items():
            exact = form.endswith("base64")
            for value in values:
                needle = Needle(value if exact else folded(value), canary, form)
                assert len(value) >= GRAM, f"{canary} is too short as {form}"
                (self._exact if exact else self._folded).setdefault(needle.data[:GRAM], set()).add(needle)

    def _add_short(self, canary: Canary) -> None:
        """Alone; and encoded with the quotes that it has in JSON, which make it long enough."""
        for form, text in (("utf-8", canary.value), ("reversed utf-8", canary.value[::-1])):
            pattern = rb"(?<!%b)%b(?!%b)" % (_BESIDE, re.escape(text.encode()), _BESIDE)
            self._alone.append((re.compile(pattern, re.IGNORECASE), Needle(b"", canary.name, form)))
        quoted = forms(f'"{canary.value}"')
        self._add(canary.name, {form: quoted[form] for form in quoted if form.endswith(("hex", "base64"))})

    def _in(self, data: bytes) -> Iterator[Needle]:
        for grams, text in ((self._folded, folded(data)), (self._exact, data)):
            for start in range(0, len(text), CHUNK):
                chunk = text[start : start + CHUNK + GRAM - 1]
                for gram in grams.keys() & {chunk[at : at + GRAM] for at in range(len(chunk) - GRAM + 1)}:
                    yield from (needle for needle in grams[gram] if needle.data in text)
        yield from (needle for pattern, needle in self._alone if pattern.search(data))


def summary(searcher: Searcher, places: Sequence[Place], findings: Sequence[Finding]) -> str:
    """What was searched for, where, and what was found, in lines for a person to read."""
    lines = [f"{len(searcher.canaries)} canaries in {searcher.needles} forms"]
    for store in sorted({place.store for place in places}):
        some = [place for place in places if place.store == store]
        hits = {(finding.place, finding.canary) for finding in findings if finding.place.startswith(f"{store} ")}
        lines.append(f"  {store}: {len(some)} places, {sum(len(place.data) for place in some)} bytes, {len(hits)} hits")
        where = Counter(" ".join(place.split()[:2]) for place, _ in hits)
        lines += [f"    {count} in {place}" for place, count in sorted(where.items())]
    return "\n".join(lines)
