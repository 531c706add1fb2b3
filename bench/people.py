"""The users that the benchmarks read and change: complete profiles, made through the API."""

from collections.abc import Mapping
from uuid import UUID

import msgspec

from bench import load
from bench.load import Client, Job

PROFILE = {
    "first_name": "Asha",
    "last_name": "Verma",
    "date_of_birth": "1994-08-12",
    "pan_number": "ABCPV1234F",
    "aadhaar_last4": "4321",
    "address": {"line1": "14 MG Road", "city": "Pune", "state": "Maharashtra", "pin_code": "411001"},
    "phone": "+919876543210",
    "avatar_url": "https://cdn.example.in/a/14.png",
}


def create(client: Client, port: str, tokens: Mapping[UUID, str]) -> None:
    """The first call of each creates it, with every field filled in."""
    body = msgspec.json.encode(PROFILE)
    client.run(Job(int(port), [load.patch("/v1/me", token, body) for token in tokens.values()], connections=8))
