"""Sealing and opening one field, with each cipher, as a request does it: user key, AAD, padding and all."""

import time
import timeit
from uuid import uuid4

from bench.report import Result, below
from bench.servers import Servers
from usercore.pii import keyring as keyrings
from usercore.pii.cipher import CipherName, cipher
from usercore.pii.classification import ADDRESS, PAN_NUMBER
from usercore.pii.keyring import EpochKey, Keyring

LIMIT_US = 5.0
ROUNDS = 11
CALLS = 1000
VALUES = (
    (PAN_NUMBER, "ABCPV1234F"),
    (ADDRESS, '{"line1":"14 MG Road","city":"Pune","state":"Maharashtra","pin_code":"411001","country":"IN"}'),
)


def run(servers: Servers) -> list[Result]:
    ciphers: tuple[CipherName, ...] = ("cryptography", "pycryptodome")
    default = _times("cryptography")
    found: list[Result] = []
    for name in ciphers:
        for what, microseconds in (default if name == "cryptography" else _times(name)).items():
            if name == "cryptography":
                found.append(below("fields", f"{what}, {name}", microseconds, "µs", LIMIT_US))
            else:
                against = f"{default[what]:.2f} µs with cryptography"
                found.append(
                    Result("fields", f"{what}, {name}", microseconds, "µs", against, microseconds / default[what])
                )
    return found


def _times(name: CipherName) -> dict[str, float]:
    """Microseconds of CPU in the best round: whatever else the machine does only adds."""
    keyring = Keyring(cipher(name))
    keyring.install(
        [EpochKey(number, purpose, 1, "active", bytes(32)) for number, purpose in enumerate(keyrings.PURPOSES, 1)]
    )
    user_id = uuid4()
    keys = keyring.unlock(user_id, keyring.new_user_keys(user_id))
    found: dict[str, float] = {}
    for field, value in VALUES:
        sealed = keys.seal(field, value)
        works = {"seal": lambda f=field, v=value: keys.seal(f, v), "open": lambda f=field, s=sealed: keys.open(f, s)}
        for verb, work in works.items():
            rounds = timeit.repeat(work, timer=time.process_time, number=CALLS, repeat=ROUNDS)
            found[f"{verb} {field.name}"] = min(rounds) / CALLS * 1e6
    return found
