"""A small schema registry for development and tests: the part of Confluent's HTTP API that clients of ours use.

`python -m usercore.testing.registry PORT [FILE]`; without a file it is in memory. BACKWARD compatibility, as the real
one has by default.
"""

import sys
from pathlib import Path
from typing import Any, cast

import msgspec
from aiohttp import web
from msgspec import Struct

Schema = dict[str, Any]


class Kept(Struct):
    """Schemas as text, of which the first has the id 1; the ids of each subject's versions."""

    schemas: list[str] = []
    subjects: dict[str, list[int]] = {}


class RegistryServer:
    """Subjects with their versions; equal schemas share an id."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        kept = msgspec.json.decode(file.read_bytes(), type=Kept) if file is not None and file.exists() else Kept()
        self.schemas = kept.schemas
        self.subjects = kept.subjects
        self.app = web.Application()
        self.app.add_routes(
            [
                web.get("/subjects", self._list_subjects),
                web.get("/subjects/{subject}/versions", self._list_versions),
                web.get("/subjects/{subject}/versions/{version}", self._get_version),
                web.post("/subjects/{subject}/versions", self._register),
                web.post("/compatibility/subjects/{subject}/versions/latest", self._check),
                web.get("/schemas/ids/{id}", self._get_schema),
                web.get("/config", self._get_config),
            ]
        )

    async def _list_subjects(self, request: web.Request) -> web.Response:
        return _answer(sorted(self.subjects))

    async def _list_versions(self, request: web.Request) -> web.Response:
        found = self.subjects.get(request.match_info["subject"])
        return _error(40401, "Subject not found.") if found is None else _answer(list(range(1, len(found) + 1)))

    async def _get_version(self, request: web.Request) -> web.Response:
        subject, wanted = request.match_info["subject"], request.match_info["version"]
        found = self.subjects.get(subject, [])
        number = len(found) if wanted == "latest" else int(wanted) if wanted.isdigit() else 0
        if not 0 < number <= len(found):
            return _error(40402, "Version not found.")
        schema_id = found[number - 1]
        return _answer({"subject": subject, "version": number, "id": schema_id, "schema": self.schemas[schema_id - 1]})

    async def _register(self, request: web.Request) -> web.Response:
        schema = await _schema(request)
        if schema is None:
            return _error(42201, "Invalid Avro schema")
        versions = self.subjects.get(request.match_info["subject"], [])
        text = msgspec.json.encode(schema).decode()
        known = self.schemas.index(text) + 1 if text in self.schemas else len(self.schemas) + 1
        if known not in versions:
            if problems := self._problems(versions, schema):
                return _error(409, f"Schema being registered is incompatible with an earlier schema: {problems}")
            self.subjects.setdefault(request.match_info["subject"], []).append(known)
            if known > len(self.schemas):
                self.schemas.append(text)
            self._keep()
        return _answer({"id": known})

    async def _check(self, request: web.Request) -> web.Response:
        schema = await _schema(request)
        if schema is None:
            return _error(42201, "Invalid Avro schema")
        versions = self.subjects.get(request.match_info["subject"])
        if versions is None:
            return _error(40401, "Subject not found.")
        return _answer({"is_compatible": not self._problems(versions, schema)})

    async def _get_schema(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        if not wanted.isdigit() or not 0 < int(wanted) <= len(self.schemas):
            return _error(40403, "Schema not found")
        return _answer({"schema": self.schemas[int(wanted) - 1]})

    async def _get_config(self, request: web.Request) -> web.Response:
        return _answer({"compatibilityLevel": "BACKWARD"})

    def _keep(self) -> None:
        """Whole or not at all: an id that came to mean something else would make old events unreadable."""
        if self._file is not None:
            making = self._file.with_suffix(".making")
            making.write_bytes(msgspec.json.encode(Kept(self.schemas, self.subjects)))
            making.replace(self._file)

    def _problems(self, versions: list[int], schema: Schema) -> list[str]:
        if not versions:
            return []
        return unreadable(schema, msgspec.json.decode(self.schemas[versions[-1] - 1]))


def unreadable(reader: Schema, writer: Schema) -> list[str]:
    """Fields for which a reader with one record schema cannot read what was written with another (Avro 1.11,
    Schema Resolution): a new field without a default, and a type that was neither kept nor widened.
    """
    written = {field["name"]: field["type"] for field in writer["fields"]}
    found: list[str] = []
    for field in reader["fields"]:
        if field["name"] not in written:
            found += [] if "default" in field else [f"{field['name']} is new and has no default"]
        elif not _reads(field["type"], written[field["name"]]):
            found.append(f"{field['name']} has another type")
    return found


WIDENED = {("long", "int"), ("double", "float"), ("double", "long"), ("double", "int"), ("float", "int")}


def _reads(reader: Any, writer: Any) -> bool:
    if isinstance(writer, list):
        return all(_reads(reader, branch) for branch in cast("list[Any]", writer))
    if isinstance(reader, list):
        return any(_reads(branch, writer) for branch in cast("list[Any]", reader))
    if isinstance(reader, dict) and isinstance(writer, dict):
        mine, theirs = cast("Schema", reader), cast("Schema", writer)
        if mine["type"] == theirs["type"] == "array":
            return _reads(mine["items"], theirs["items"])
        return mine == theirs
    return reader == writer or any((reader, writer) == pair for pair in WIDENED)


async def _schema(request: web.Request) -> Schema | None:
    try:
        schema = msgspec.json.decode((await request.json())["schema"])
    except (ValueError, KeyError, TypeError):
        return None
    return cast("Schema", schema) if isinstance(schema, dict) and "fields" in schema else None


def _answer(body: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/vnd.schemaregistry.v1+json")


def _error(code: int, message: str) -> web.Response:
    status = code if code < 1000 else code // 100
    body = msgspec.json.encode({"error_code": code, "message": message})
    return web.Response(status=status, body=body, content_type="application/vnd.schemaregistry.v1+json")


if __name__ == "__main__":
    kept_in = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    web.run_app(RegistryServer(kept_in).app, host="127.0.0.1", port=int(sys.argv[1]))
