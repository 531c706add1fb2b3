"""A schema registry as a service of the embedded stack, where `EVENT_FORMAT=avro` asks for one."""

import os
import sys
from collections.abc import Mapping

from usercore.devstack.service import Service

PORT = "SCHEMA_REGISTRY_PORT"


def services() -> tuple[Service, ...]:
    if os.environ.get("EVENT_FORMAT") != "avro":
        return ()
    command = (sys.executable, "-P", "-m", "usercore.testing.registry", f"{{{PORT}}}", "schemas.json")
    return (Service("registry", "schema registry", command, ports={PORT: None}, probe=(PORT, "/subjects")),)


def settings(ports: Mapping[str, int]) -> dict[str, str]:
    if PORT not in ports:
        return {}
    return {"EVENT_FORMAT": "avro", "SCHEMA_REGISTRY_URL": f"http://127.0.0.1:{ports[PORT]}"}
