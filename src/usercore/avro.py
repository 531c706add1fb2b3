"""Events as Avro in Confluent's wire format: schemas made from the Structs, ids from a schema registry.

A message is a zero byte, the schema's id as four bytes (big-endian), and the Avro binary encoding. Subjects are named
after topics (`<topic>-value`). Once an id is known it stays known: the registry is asked at the start and for new ids.
"""

import io
import struct
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints
from uuid import UUID

import aiohttp
import fastavro
import msgspec
from msgspec import Struct

from usercore.db import outside_transaction
from usercore.errors import ServiceUnavailable
from usercore.settings import Settings

MAGIC = b"\0"
PREFIX = struct.Struct(">bI")
MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
TIMEOUT_S = 3.0
NOT_FOUND, LARGEST_ANSWER = 404, 1024 * 1024

Schema = dict[str, Any]


class RegistryUnavailable(ServiceUnavailable):
    """Schema registry unavailable.

    Events wait until it answers.
    """

    code = "schema_registry_unavailable"


class SchemaRefused(ServiceUnavailable):
    """Schema refused.

    The registry does not take our schema: it is not compatible with the one that it has. Events wait.
    """

    code = "schema_refused"


class EventRefused(ServiceUnavailable):
    """Event refused.

    An event in the outbox does not fit the schema of its topic: this version does not know it. It waits.
    """

    code = "event_refused"


def schema_of(event: type[Struct], name: str) -> Schema:
    """The Avro record of a Struct. Closed lists are strings: an enum could never get a new label.

    Raises TypeError for a type that has no form in Avro here.
    """
    hints = get_type_hints(event)
    fields: list[Schema] = []
    for field in msgspec.structs.fields(event):
        entry: Schema = {"name": field.name, "type": _type_of(hints[field.name])}
        if field.default is None or isinstance(field.default, str):
            entry["default"] = field.default
        fields.append(entry)
    return {"type": "record", "name": event.__name__, "namespace": f"usercore.{name}", "fields": fields}


def _type_of(hint: Any) -> object:
    simple = {
        str: "string",
        int: "long",
        bool: "boolean",
        UUID: {"type": "string", "logicalType": "uuid"},
        datetime: {"type": "long", "logicalType": "timestamp-micros"},
    }
    if hint in simple:
        return simple[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "string"
    if origin is list:
        return {"type": "array", "items": _type_of(arguments[0])}
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        # Null first: only the first branch may be the default.
        return ["null", _type_of(next(each for each in arguments if each is not NoneType))]
    raise TypeError(f"{hint} has no form in Avro here")


def subject(topic: str) -> str:
    return f"{topic}-value"


def parsed(schema: Schema) -> Schema:
    """The schema as `encode` and `decode` are quick with it."""
    return cast("Schema", fastavro.parse_schema(schema))


def encode(event: Struct, schema_id: int, schema: Schema) -> bytes:
    """The message of an event. Raises ValueError for one that does not fit."""
    out = io.BytesIO()
    out.write(PREFIX.pack(0, schema_id))
    fastavro.schemaless_writer(out, schema, msgspec.structs.asdict(event))
    return out.getvalue()


def schema_id_of(message: bytes) -> int | None:
    """The id in a message, None when it is not one of ours: JSON never begins with a zero byte."""
    return PREFIX.unpack_from(message)[1] if message[:1] == MAGIC and len(message) > PREFIX.size else None


def decode(message: bytes, schema: Schema) -> dict[str, Any]:
    """What a message says, by the schema that it was written with. Raises ValueError."""
    try:
        found = fastavro.schemaless_reader(io.BytesIO(message[PREFIX.size :]), schema, None)
    except Exception as error:  # whatever a parser trips over in bytes that anybody may have sent
        raise ValueError("no Avro of this schema") from error
    if not isinstance(found, dict):
        raise ValueError("no record")
    return cast("dict[str, Any]", found)


class Registry:
    """A client of a schema registry that speaks Confluent's HTTP API; remembers what it was told."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._ids: dict[str, int] = {}
        self._schemas: dict[int, Schema] = {}
        self._session: aiohttp.ClientSession | None = None

    async def register(self, topic: str, schema: Schema) -> int:
        """The id of a topic's schema, which the registry gets unless it has it.

        Raises RegistryUnavailable, and SchemaRefused when it is not compatible.
        """
        if (known := self._ids.get(topic)) is None:
            body = {"schema": msgspec.json.encode(schema).decode(), "schemaType": "AVRO"}
            status, answer = await self._ask("POST", f"/subjects/{subject(topic)}/versions", body)
            if status in (409, 422):
                raise SchemaRefused
            known = self._ids[topic] = _member(answer, "id", int)
        return known

    async def schema(self, schema_id: int) -> Schema | None:
        """The schema of an id, None when the registry does not know it. Raises RegistryUnavailable."""
        if schema_id not in self._schemas:
            status, answer = await self._ask("GET", f"/schemas/ids/{schema_id}", None)
            if status == NOT_FOUND:
                return None
            text = _member(answer, "schema", str)
            try:
                self._schemas[schema_id] = parsed(msgspec.json.decode(text))
            except Exception as error:
                raise RegistryUnavailable from error
        return self._schemas[schema_id]

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, path: str, body: Mapping[str, str] | None) -> tuple[int, object]:
        outside_transaction()
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        data = None if body is None else msgspec.json.encode(body)
        headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
        try:
            async with self._session.request(method, self._url + path, data=data, headers=headers) as response:
                answer = await response.content.read(LARGEST_ANSWER)
                if response.status not in (200, 404, 409, 422):
                    raise RegistryUnavailable
                return response.status, msgspec.json.decode(answer)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
            raise RegistryUnavailable from error


def registry_of(settings: Settings) -> Registry | None:
    """The registry of SCHEMA_REGISTRY_URL, if there is one; who asked for it closes it."""
    url = settings.schema_registry_url
    return None if url is None else Registry(url.reveal())


@asynccontextmanager
async def opened(settings: Settings) -> AsyncGenerator[Registry | None]:
    """As `registry_of`, closed at the end."""
    registry = registry_of(settings)
    try:
        yield registry
    finally:
        if registry is not None:
            await registry.close()


async def said(registry: Registry | None, message: bytes) -> object:
    """What an Avro message says as JSON has it; None for any other one. Raises RegistryUnavailable."""
    schema_id = schema_id_of(message)
    schema = None if registry is None or schema_id is None else await registry.schema(schema_id)
    if schema is None:
        return None
    try:
        return msgspec.to_builtins(decode(message, schema))
    except ValueError:
        return None


def _member(answer: object, name: str, kind: type[Any]) -> Any:
    value = cast("dict[str, object]", answer).get(name) if isinstance(answer, dict) else None
    if type(value) is not kind:
        raise RegistryUnavailable
    return value
