"""The embedded stack of one checkout: servers, migrations and our own services, in the background."""

import contextlib
import errno
import functools
import hashlib
import http.client
import os
import re
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, Protocol

from usercore.devstack import clickhouse, registry, room, sandboxes
from usercore.devstack.clickhouse import ClickHouse
from usercore.devstack.environment import write_environment
from usercore.devstack.kafka import Kafka
from usercore.devstack.postgres import Postgres
from usercore.devstack.processes import (
    Daemon,
    Say,
    StackError,
    disk_full,
    disk_is_full,
    in_parallel,
    locked,
    log_tail,
    port_is_free,
    remembered_port,
    say,
    wait_until,
)
from usercore.devstack.provision import DATABASE, TOPICS, make_keys, settings
from usercore.devstack.redis import Redis
from usercore.devstack.service import Service
from usercore.statements import resource_dir

# `-P`: nothing is imported from the folder that a process works in.
USERCORE = (sys.executable, "-P", "-m", "usercore")
READY = "/health/ready"
SERVICES = (
    Service("api", "HTTP API", (*USERCORE, "serve"), ports={"PORT": 8080, "OPS_PORT": 9090}, probe=("PORT", READY)),
    Service("work", "background loops", (*USERCORE, "work"), ports={"OPS_PORT": None}, probe=("OPS_PORT", READY)),
)
READY_S = 60
STAMP = "started-with"
"""The file in a service's folder that says with which code and settings it runs."""
MIGRATE = (*USERCORE, "migrate")


class Part(NamedTuple):
    """A row of the table of what runs where."""

    name: str
    what: str
    where: str
    pid: int | None


class PortTaken(StackError):
    """Another program took a port between our look and our start."""


class _Stoppable(Protocol):
    def pid(self) -> int | None: ...
    def stop(self) -> None: ...


class _Server(_Stoppable, Protocol):
    @property
    def version(self) -> str: ...
    @property
    def where(self) -> str: ...
    def start(self) -> None: ...


class Stack:
    """Everything below `<checkout>/.dev`; two checkouts share nothing."""

    def __init__(
        self,
        checkout: Path,
        *,
        say: Say = say,
        services: Sequence[Service] | None = None,
        migrate: Sequence[str] = MIGRATE,
    ) -> None:
        self.home = checkout.resolve() / ".dev"
        self._say = say
        self._sandboxes = sandboxes.installed() if services is None else {}
        own = (*SERVICES, *registry.services(), *sandboxes.services(self._sandboxes))
        self._services = own if services is None else services
        self._migrate = migrate
        self.postgres = Postgres(self.home / "postgres", say=say)
        self.redis = Redis(self.home / "redis", say=say)
        self.kafka = Kafka(self.home / "kafka", say=say)
        self._daemons = {service.name: Daemon(self.home / service.name) for service in self._services}
        self.clickhouse: ClickHouse | None = None
        self._servers: dict[str, _Server] = {"postgres": self.postgres, "redis": self.redis, "kafka": self.kafka}
        if (self.home / "clickhouse").exists():
            self._use_clickhouse(clickhouse.installed())

    def up(self) -> None:
        """Start what does not run and return when all of it is ready. Raises StackError with what to do."""
        with self._alone():
            check_room(self)
            self._use_clickhouse(clickhouse.choose(self._say))
            in_parallel(functools.partial(self._start_server, name) for name in self._servers)
            self.postgres.create_database(DATABASE)
            self.kafka.create_topics(TOPICS)
            make_keys(self.home)
            (self.home / "artifacts").mkdir(exist_ok=True)
            self._stop_all(self._left_over())
            self._run_migrations(self._write_settings(self._all_ports()))
            self._start_services()

    def down(self) -> None:
        """Stop what runs, services first; data and ports stay for the next time."""
        if not self.home.exists():
            return
        with self._alone():
            self._stop_all({**self._left_over(), **self._daemons})
            self._stop_all(self._servers)

    def dead(self) -> list[str]:
        """Our own services that do not run."""
        return [name for name, daemon in self._daemons.items() if daemon.pid() is None]

    def restart_dead(self) -> None:
        with self._alone():
            self._start_services()

    def status(self) -> list[Part]:
        """What runs where; servers first."""
        rows: list[Part] = []
        for name, server in self._servers.items():
            what, where = (server.version, server.where) if server.pid() else ("", "")
            rows.append(Part(name, what, where, server.pid()))
        for service in self._services:
            daemon = self._daemons[service.name]
            port = next(iter(self._ports(service).values())) if daemon.pid() else None
            rows.append(Part(service.name, service.what, f"http://127.0.0.1:{port}" if port else "", daemon.pid()))
        return rows

    def port(self, service: str, setting: str) -> int | None:
        """None while the service does not run."""
        if self._daemons[service].pid() is None:
            return None
        return next(self._ports(known)[setting] for known in self._services if known.name == service)

    def logs(self) -> dict[str, Path]:
        names = [*self._servers, *self._daemons]
        return {name: self.home / name / "log" for name in names}

    @contextlib.contextmanager
    def _alone(self) -> Generator[None]:
        """One `up` or `down` at a time in a checkout, and whatever the system refuses as a sentence."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            # The account that Postgres runs as has to pass through when we are root.
            self.home.chmod(0o711)
            with locked(self.home / "lock", f"another up or down of {self.home.parent} is at work, waiting", self._say):
                yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(self.home) from error
            raise StackError(
                f"{error.filename or self.home}: {error.strerror}; mend that, then start again."
            ) from error

    def _use_clickhouse(self, program: Path | None) -> None:
        """Part of the stack where it can be had."""
        if program is None or self.clickhouse is not None:
            return
        self.clickhouse = ClickHouse(self.home / "clickhouse", program, say=self._say)
        self._servers["clickhouse"] = self.clickhouse

    def _start_server(self, name: str) -> None:
        server = self._servers[name]
        if server.pid() is None:
            self._say(f"{name}: starting")
        server.start()

    def _left_over(self) -> dict[str, Daemon]:
        """Services of an earlier `up` that wanted others: sandboxes of vendors which are not enabled any more."""
        folders = [stamp.parent for stamp in self.home.glob(f"*/{STAMP}")]
        return {folder.name: Daemon(folder) for folder in folders if folder.name not in self._daemons}

    def _stop_all(self, processes: Mapping[str, _Stoppable]) -> None:
        in_parallel(functools.partial(self._stop, name, process) for name, process in processes.items())

    def _stop(self, name: str, process: _Stoppable) -> None:
        if process.pid() is not None:
            self._say(f"{name}: stopping")
        process.stop()

    def _ports(self, service: Service) -> dict[str, int]:
        """Kept across restarts; chosen anew only when the service does not run and another program has taken one."""
        folder = self.home / service.name
        folder.mkdir(exist_ok=True)
        files = {name: folder / f"port.{name.lower()}" for name in service.ports}
        if self._daemons[service.name].pid() is not None and all(file.exists() for file in files.values()):
            return {name: int(file.read_text()) for name, file in files.items()}
        return {
            name: remembered_port(files[name], service.name, self._say, preferred)
            for name, preferred in service.ports.items()
        }

    def _all_ports(self) -> dict[str, dict[str, int]]:
        return {service.name: self._ports(service) for service in self._services}

    def _write_settings(self, ports: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
        values = settings(self.home, self.postgres, self.redis, self.kafka, ports[self._services[0].name])
        if self.clickhouse is not None:
            values["CLICKHOUSE_URL"] = self.clickhouse.url()
        every = {name: port for own in ports.values() for name, port in own.items()}
        values |= registry.settings(every) | sandboxes.settings(self._sandboxes, every)
        write_environment(self.home, values)
        return values

    def _run_migrations(self, values: Mapping[str, str]) -> None:
        log = self.home / "migrate.log"
        child = subprocess.Popen(
            self._migrate,
            env={**os.environ, **values},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert child.stdout
        with child, log.open("w") as out:
            for line in child.stdout:
                out.write(line)
                self._say(f"migrate: {line.rstrip()}")
        if child.returncode:
            raise StackError(f"The migrations did not run through: {log_tail(log, 1)}; see {log}.")

    def _start_services(self) -> None:
        """With the ports of the first service in `.dev/env`."""
        for attempt in range(3):
            ports = self._all_ports()
            values = self._write_settings(ports)
            try:
                in_parallel(
                    functools.partial(self._start_service, service, values, ports[service.name])
                    for service in self._services
                )
            except PortTaken as taken:
                self._say(str(taken))
                if attempt == 2:
                    raise
            else:
                return

    def _start_service(self, service: Service, shared: Mapping[str, str], ports: Mapping[str, int]) -> None:
        daemon = self._daemons[service.name]
        values = {**shared, **{name: str(port) for name, port in ports.items()}}
        wanted = fingerprint(service, values)
        stamp = daemon.home / STAMP
        if daemon.pid() is not None:
            if stamp.exists() and stamp.read_text() == wanted and self._is_ready(service, daemon, ports):
                return
            self._say(f"{service.name}: code or settings have changed, or it has failed: starting anew")
            daemon.stop()
        self._say(f"{service.name}: starting")
        # Only our own placeholders: a command may hold braces of its own.
        command = [re.sub(r"\{([A-Z_]+)\}", lambda name: values[name[1]], part) for part in service.command]
        daemon.start(command, {**os.environ, **values})
        stamp.write_text(wanted)
        if self._is_ready(service, daemon, ports):
            return
        daemon.kill()
        text = daemon.log.read_text(errors="replace")
        if disk_is_full(text):
            raise disk_full(self.home)
        if not all(port_is_free(port) for port in ports.values()):
            raise PortTaken(f"{service.name}: a port was taken by another program, moving to a free one")
        raise StackError(f"{service.name} did not become ready: {log_tail(daemon.log, 1)}; see {daemon.log}.")

    def _is_ready(self, service: Service, daemon: Daemon, ports: Mapping[str, int]) -> bool:
        setting, path = service.probe
        return wait_until(
            lambda: daemon.listens(ports[setting]) and answers(ports[setting], path),
            lambda: daemon.pid() is not None,
            READY_S,
        )


def check_room(stack: Stack) -> None:
    """Raises StackError when what is not running yet does not fit. Asks nothing when all servers run."""
    if stack.kafka.pid() is None:
        room.check_memory(stack.kafka.kind)
    for folder in (stack.home, stack.postgres.place):
        room.check_disk(folder, first=not (stack.home / "env").exists())


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def fingerprint(service: Service, values: Mapping[str, str]) -> str:
    """Changes with the settings and with the code that the service runs."""
    digest = hashlib.sha256(repr((service.command, sorted(values.items()))).encode())
    package = Path(__file__).parents[1]
    for file in sorted(package.rglob("*.py")) + sorted(resource_dir("sql").glob("*.sql")):
        digest.update(f"{file}{file.stat().st_mtime_ns}".encode())
    return digest.hexdigest()
