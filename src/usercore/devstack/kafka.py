"""A Kafka broker in one folder: Apache Kafka (KRaft) where Java and Maven are there, else librdkafka's mock cluster."""

import base64
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal, cast

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from usercore.devstack import kafka_jars
from usercore.devstack.processes import (
    Daemon,
    Say,
    StackError,
    disk_full,
    disk_is_full,
    log_tail,
    quiet,
    remembered_port,
    wait_until,
)

Kind = Literal["apache", "mock"]
KINDS: Mapping[str, Kind] = {"apache": "apache", "mock": "mock"}

PARTITIONS = 4

# For one small broker on one machine that also runs everything else: quick to start and to come back after kill -9.
PROPERTIES: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": str(PARTITIONS),
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A broker that was killed may register again only when its old session is over.
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "250",
}
JVM = ("-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")


def choose(say: Say) -> Kind:
    """`USERCORE_DEV_KAFKA` decides; without it, what the machine has."""
    wanted = os.environ.get("USERCORE_DEV_KAFKA", "")
    if kind := KINDS.get(wanted):
        return kind
    if wanted:
        raise StackError(f"USERCORE_DEV_KAFKA is {wanted!r}: set it to 'apache' or 'mock', or unset it.")
    missing = "Java 17 or newer" if kafka_jars.java() is None else ""
    if not missing and not kafka_jars.cached() and shutil.which("mvn") is None:
        missing = "Maven"
    if not missing:
        try:
            kafka_jars.fetch(say)
        except StackError as error:
            say(f"kafka: {error}")
            missing = "Apache Kafka"
    if not missing:
        return "apache"
    say(f"kafka: {missing} is not here, using the in-memory mock cluster")
    return "mock"


class Kafka:
    """Loopback only, without authentication."""

    def __init__(self, home: Path, *, kind: Kind | None = None, say: Say = quiet) -> None:
        self.home = home.resolve()
        self._say = say
        self._kind: Kind | None = kind
        self._daemon = Daemon(self.home)

    @property
    def kind(self) -> Kind:
        if self._kind is None:
            self._kind = self._running_kind() or choose(self._say)
        return self._kind

    def _running_kind(self) -> Kind | None:
        return KINDS.get((self.home / "kind").read_text()) if self.pid() is not None else None

    @property
    def brokers(self) -> str:
        """host:port. The mock cluster gets a new port with every start."""
        return (self.home / "brokers").read_text()

    @property
    def version(self) -> str:
        return f"Apache Kafka {kafka_jars.version()}" if self.kind == "apache" else "librdkafka mock cluster"

    @property
    def where(self) -> str:
        return self.brokers

    def pid(self) -> int | None:
        return self._daemon.pid()

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if self._running_kind() == self.kind and self._runs_well():
            return
        self.stop()
        (self.home / "kind").write_text(self.kind)
        (self.home / "brokers").unlink(missing_ok=True)
        if self.kind == "apache":
            self._start_apache()
        else:
            self._daemon.start([sys.executable, "-m", "usercore.devstack.kafka_mock", str(self.home / "brokers")])
        if self._runs_well():
            return
        self.kill()
        if disk_is_full(self._daemon.log.read_text(errors="replace")):
            raise disk_full(self.home)
        raise StackError(f"Kafka did not start: {log_tail(self._daemon.log)}; see {self._daemon.log}.")

    def _runs_well(self) -> bool:
        return wait_until(self._answers, lambda: self.pid() is not None, 60)

    def stop(self) -> None:
        self._daemon.stop()

    def kill(self) -> None:
        self._daemon.kill()

    def create_topics(self, topics: Mapping[str, Mapping[str, str]]) -> None:
        """Topics by name with their settings, which the mock cluster has none of; those that are there stay."""
        admin = self._admin()
        if self.kind == "mock":
            for name in topics:
                admin.list_topics(name, timeout=10)
            return
        wanted = [
            NewTopic(name, num_partitions=PARTITIONS, replication_factor=1, config=dict(settings))
            for name, settings in topics.items()
        ]
        made = cast(Mapping[str, Future[None]], admin.create_topics(wanted, request_timeout=20))
        for topic in made.values():
            try:
                topic.result(timeout=30)
            except KafkaException as error:
                if cast(KafkaError, error.args[0]).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise StackError(f"Kafka did not make the topics: {error}.") from error

    def topics(self) -> dict[str, int]:
        """Number of partitions by name."""
        found = self._admin().list_topics(timeout=10).topics
        return {name: len(topic.partitions) for name, topic in found.items()}

    def _start_apache(self) -> None:
        jars = kafka_jars.fetch(self._say)
        port = remembered_port(self.home / "port", "kafka", self._say)
        controller = remembered_port(self.home / "port.controller", "kafka", self._say)
        data = self.home / "data"
        properties = {
            **PROPERTIES,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "log.dirs": str(data),
        }
        config = self.home / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        java = [self._java(), *JVM, "-Dlog4j2.level=WARN", "-cp", f"{jars}/*"]
        if not (data / "meta.properties").exists():
            self._say("kafka: making a new instance")
            self._format(java, config)
        (self.home / "brokers").write_text(f"127.0.0.1:{port}")
        self._daemon.start([*java, "kafka.Kafka", str(config)])

    def _format(self, java: list[str], config: Path) -> None:
        tool = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        command = [*tool, "-t", new_cluster_id(), "-c", str(config)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            if disk_is_full(done.stdout + done.stderr):
                raise disk_full(self.home)
            raise StackError(f"Kafka's folder could not be made: {(done.stderr or done.stdout).strip()[-300:]}.")

    def _java(self) -> str:
        program = kafka_jars.java()
        if program is None:
            raise StackError("Apache Kafka needs Java 17 or newer: install it or set USERCORE_DEV_KAFKA=mock.")
        return program

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})

    def _answers(self) -> bool:
        """A broker that listens but is still fenced names no brokers."""
        with contextlib.suppress(FileNotFoundError, OSError, KafkaException):
            host, port = self.brokers.split(":")
            socket.create_connection((host, int(port)), timeout=2).close()
            return bool(self._admin().list_topics(timeout=2).brokers)
        return False


def new_cluster_id() -> str:
    """16 random bytes as Kafka writes them; never with a hyphen in front, which its tool would take for an option."""
    return base64.urlsafe_b64encode(bytes([secrets.randbelow(128)]) + secrets.token_bytes(15)).decode().rstrip("=")
