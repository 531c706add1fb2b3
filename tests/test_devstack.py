"""The embedded stack: each server and all of them together, through what goes wrong on a developer's machine."""

import base64
import errno
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from tests.servers import ClickHouse, Kafka, Postgres, Redis
from usercore.devstack import accounts, clickhouse, kafka_jars, registry, room, stack
from usercore.devstack.environment import checkout, environment
from usercore.devstack.kafka import choose, new_cluster_id
from usercore.devstack.processes import Daemon, StackError, alive, free_port, port_is_free, quiet, remembered_port
from usercore.devstack.provision import TOPICS
from usercore.devstack.service import Service
from usercore.devstack.stack import Stack
from usercore.devstack.terminal import Follower, readable

AN_OLD_PID = 2**22 + 1

# Stands in for `usercore serve`: the stack takes its services as data, so that this file tests the stack alone.
SERVICE = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ[sys.argv[1]])), Handler).serve_forever()
"""


def service(name: str, port: str, preferred: int | None = None, code: str = SERVICE) -> Service:
    return Service(name, name, (sys.executable, "-c", code, port), {port: preferred}, (port, "/"))


@pytest.fixture
def make_stack(server_home: Callable[[str], Path]) -> Generator[Callable[..., Stack]]:
    """Stacks below a new folder each, with one service; stopped at the end."""
    made: list[Stack] = []

    def make(
        folder: Path | None = None,
        *services: Service,
        say: Callable[[str], None] = quiet,
        migrate: str = "print('migrated')",
    ) -> Stack:
        here = folder or server_home("checkout")
        made.append(
            Stack(
                here,
                say=say,
                services=services or (service("api", "PORT"),),
                migrate=(sys.executable, "-c", migrate),
            )
        )
        return made[-1]

    os.environ["USERCORE_DEV_KAFKA"] = "mock"
    try:
        yield make
    finally:
        del os.environ["USERCORE_DEV_KAFKA"]
        for each in made:
            each.down()


def pids(of: Stack) -> dict[str, int | None]:
    return {part.name: part.pid for part in of.status()}


@pytest.fixture
def taken() -> Generator[Callable[[int], None]]:
    """Occupies ports until the end of the test."""
    sockets: list[socket.socket] = []

    def take(port: int) -> None:
        sockets.append(socket.create_server(("127.0.0.1", port)))

    yield take
    for each in sockets:
        each.close()


# Servers --------------------------------------------------------------------------------------------------------------


def test_postgres_listens_on_loopback_and_wants_a_password(postgres: Postgres) -> None:
    expected = {
        "listen_addresses": "127.0.0.1",
        "password_encryption": "scram-sha-256",
        "jit": "off",
        "unix_socket_directories": "",
        "shared_preload_libraries": "pg_stat_statements",
        "max_connections": "200",
        "log_error_verbosity": "terse",
    }
    with psycopg.connect(postgres.admin_url) as conn:
        query = "select name, setting from pg_settings where name = any(%s)"
        assert dict(conn.execute(query, (list(expected),)).fetchall()) == expected
    wrong = postgres.admin_url.replace("postgres:", "postgres:x", 1)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_postgres_survives_kill_with_its_data_and_its_port(fresh_postgres: Callable[[], Postgres]) -> None:
    server = fresh_postgres()
    server.create_database("kept")
    with psycopg.connect(server.owner_url("kept")) as conn:
        assert conn.execute("show fsync").fetchone() == ("on",)
        assert conn.execute("show synchronous_commit").fetchone() == ("on",)
        conn.execute("create table t as select 7 as n")
    port = server.port
    server.kill()
    assert server.pid() is None
    server.start()
    server.start()
    assert server.port == port
    with psycopg.connect(server.owner_url("kept")) as conn:
        assert conn.execute("select n from t").fetchone() == (7,)


def test_the_owner_owns_and_the_app_does_not(fresh_postgres: Callable[[], Postgres]) -> None:
    server = fresh_postgres()
    server.create_database("d")
    server.create_database("d")
    with psycopg.connect(server.owner_url("d"), autocommit=True) as conn:
        conn.execute("create extension citext")
        conn.execute("create table t ()")
    with psycopg.connect(server.app_url("d")) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("create table u ()")


def test_postgres_moves_when_its_port_is_taken(
    fresh_postgres: Callable[[], Postgres], taken: Callable[[int], None]
) -> None:
    server = fresh_postgres()
    before = server.port
    server.stop()
    taken(before)
    server.start()
    assert server.port != before
    psycopg.connect(server.admin_url).close()


def test_secrets_of_servers_are_for_their_owner_only(postgres: Postgres, redis_server: Redis) -> None:
    secrets = [*postgres.home.glob("password.*"), redis_server.home / "password", redis_server.home / "redis.conf"]
    assert len(secrets) == 5
    for file in secrets:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_redis_wants_a_password_and_survives_kill(fresh_redis: Callable[[], Redis]) -> None:
    server = fresh_redis()
    url = server.url
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")
    server.kill()
    assert server.pid() is None
    server.start()
    assert server.url == url


def test_clickhouse_survives_kill_and_its_secrets_are_its_owners(
    fresh_clickhouse: Callable[[], ClickHouse],
) -> None:
    server = fresh_clickhouse()
    port, pid = server.port, server.pid()
    assert server.version.split()[1] >= "18.16"
    for name in ("password", "users.xml"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600
    server.kill()
    assert server.pid() is None
    server.start()
    server.start()
    assert (server.port, server.pid() != pid) == (port, True)


def test_without_clickhouse_the_stack_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []
    if clickhouse.installed() is None:
        assert clickhouse.choose(said.append) is None
        assert said == ["clickhouse: no package of it here; the audit trail stays whole in Postgres"]
    monkeypatch.setenv("USERCORE_DEV_CLICKHOUSE", "off")
    assert clickhouse.choose(said.append) is None
    assert len(said) <= 1


def test_kafka_survives_kill_with_its_topics(fresh_kafka: Callable[[], Kafka]) -> None:
    server = fresh_kafka()
    server.create_topics(TOPICS)
    server.create_topics(TOPICS)
    found = server.topics()
    assert found.items() >= dict.fromkeys(TOPICS, 4).items()
    server.kill()
    assert server.pid() is None
    server.start()
    if server.kind == "apache":
        assert server.topics() == found


def test_a_cluster_id_is_no_option() -> None:
    ids = {new_cluster_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert not [cluster for cluster in ids if cluster.startswith("-")]
    assert {len(base64.urlsafe_b64decode(f"{cluster}==")) for cluster in ids} == {16}


def test_kafka_kind_is_chosen_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USERCORE_DEV_KAFKA", "mock")
    assert choose(quiet) == "mock"
    monkeypatch.setenv("USERCORE_DEV_KAFKA", "rabbit")
    with pytest.raises(StackError, match="'apache' or 'mock'"):
        choose(quiet)


def test_without_java_the_mock_cluster_stands_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("USERCORE_DEV_KAFKA", raising=False)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    assert choose(said.append) == "mock"
    assert said == ["kafka: Java 17 or newer is not here, using the in-memory mock cluster"]


def test_jars_that_are_not_the_listed_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A `mvn` that delivers something else."""
    program = tmp_path / "mvn"
    program.write_text(
        '#!/bin/sh\nfor a; do case $a in -DoutputDirectory=*) echo evil >"${a#*=}/evil.jar";; esac; done\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(StackError, match=r"evil\.jar"):
        kafka_jars.fetch(quiet)
    assert not kafka_jars.cached()


# Processes ------------------------------------------------------------------------------------------------------------


def test_a_pid_that_belongs_to_another_program_is_not_ours(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.start(["/bin/sleep", "60"])
    pid = daemon.pid()
    assert pid
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    assert Daemon(tmp_path).pid() is None
    (tmp_path / "pid").write_text(f"{AN_OLD_PID}\n")
    assert Daemon(tmp_path).pid() is None
    (tmp_path / "pid").write_text(f"{pid}\n")
    assert Daemon(tmp_path).pid() == pid
    daemon.kill()


def test_a_process_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.start(["/bin/sh", "-c", "trap '' TERM; echo on; while :; do sleep 1; done"])
    pid = daemon.pid()
    assert pid
    daemon.stop(patience_s=0.2)
    assert not alive(pid, tmp_path)


def test_a_remembered_port_stays_until_it_is_taken(tmp_path: Path, taken: Callable[[int], None]) -> None:
    file = tmp_path / "port"
    wanted = free_port()
    assert remembered_port(file, "x", quiet, wanted) == wanted
    assert remembered_port(file, "x", quiet) == wanted
    taken(wanted)
    said: list[str] = []
    moved = remembered_port(file, "x", said.append, wanted)
    assert moved != wanted
    assert port_is_free(moved)
    assert said == [f"x: port {wanted} is taken by another program, moving to a free one"]


# The stack ------------------------------------------------------------------------------------------------------------


def test_up_starts_everything_once_and_down_stops_it(make_stack: Callable[..., Stack]) -> None:
    it = make_stack()
    it.up()
    first = pids(it)
    assert all(first.values())
    it.up()
    assert pids(it) == first
    values = environment(it.home)
    assert stat.S_IMODE((it.home / "env").stat().st_mode) == 0o600
    assert stat.S_IMODE((it.home / "jwt-private.pem").stat().st_mode) == 0o600
    shell = subprocess.run(
        ["/bin/sh", "-c", '. "$1" && printf %s "$PII_ENCRYPTION_KEY_ID $POSTGRES_URL"', "sh", str(it.home / "env")],
        check=True,
        capture_output=True,
        text=True,
        env={},
    ).stdout
    assert shell == f"{values['PII_ENCRYPTION_KEY_ID']} {values['POSTGRES_URL']}"
    psycopg.connect(values["POSTGRES_OWNER_URL"]).close()
    it.down()
    it.down()
    assert not any(pids(it).values())


def test_up_mends_what_was_killed(make_stack: Callable[..., Stack]) -> None:
    it = make_stack()
    it.up()
    before = environment(it.home)
    for name in pids(it):
        pid = pids(it)[name]
        assert pid
        os.kill(pid, signal.SIGKILL)
        it.up()
        assert all(pids(it).values()), name
        assert pids(it)[name] != pid
    # The mock cluster cannot choose its port, everything else stays where it was.
    after = environment(it.home)
    assert {name for name in before if before[name] != after[name]} <= {"KAFKA_BROKERS"}


def test_avro_brings_a_registry(make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry of the stack answers, keeps its schemas when it is started again, and the settings name it."""
    monkeypatch.setenv("EVENT_FORMAT", "avro")
    it = make_stack(None, service("api", "PORT"), *registry.services())
    it.up()
    values = environment(it.home)
    assert values["EVENT_FORMAT"] == "avro"
    subjects = f"{values['SCHEMA_REGISTRY_URL']}/subjects"
    schema = json.dumps({"type": "record", "name": "Created", "fields": []})
    body = json.dumps({"schema": schema}).encode()
    asked = urllib.request.Request(
        f"{subjects}/user.created.v1-value/versions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=5) as answer:
        number = json.load(answer)["id"]
    it.down()
    it.up()
    with urllib.request.urlopen(subjects, timeout=5) as answer:
        assert json.load(answer) == ["user.created.v1-value"]
    with urllib.request.urlopen(f"{values['SCHEMA_REGISTRY_URL']}/schemas/ids/{number}", timeout=5) as answer:
        assert json.loads(json.load(answer)["schema"]) == json.loads(schema)


def test_two_checkouts_stand_side_by_side(make_stack: Callable[..., Stack], taken: Callable[[int], None]) -> None:
    """Both want the same port first, and so does another program afterwards."""
    preferred = free_port()
    one = make_stack(None, service("api", "PORT", preferred))
    other = make_stack(None, service("api", "PORT", preferred))
    together = [threading.Thread(target=each.up) for each in (one, other)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert all(pids(one).values())
    assert all(pids(other).values())
    ports = [environment(each.home)["PORT"] for each in (one, other)]
    assert str(preferred) in ports
    assert len(set(ports)) == 2
    one.down()
    assert all(pids(other).values())
    taken(int(ports[0]))
    one.up()
    assert environment(one.home)["PORT"] not in ports


def test_the_second_of_two_ups_waits_and_finds_all_running(make_stack: Callable[..., Stack]) -> None:
    said: list[str] = []
    it = make_stack()
    twin = make_stack(it.home.parent, say=said.append)
    together = [threading.Thread(target=each.up) for each in (it, twin)]
    together[0].start()
    while not (it.home / "redis" / "pid").exists():
        assert together[0].is_alive()
    together[1].start()
    for thread in together:
        thread.join()
    assert any("is at work, waiting" in line for line in said)
    assert all(pids(it).values())
    assert pids(it) == pids(twin)


def test_changed_settings_restart_a_service(make_stack: Callable[..., Stack]) -> None:
    it = make_stack()
    it.up()
    before = pids(it)
    it.kafka.kill()
    it.up()
    assert pids(it)["api"] != before["api"]
    assert pids(it)["postgres"] == before["postgres"]


def test_a_service_that_is_not_wanted_any_more_is_stopped(make_stack: Callable[..., Stack]) -> None:
    api, sandbox = service("api", "PORT"), service("acme-sandbox", "ACME_SANDBOX_PORT")
    both = make_stack(None, api, sandbox)
    both.up()
    first = pids(both)["acme-sandbox"]
    make_stack(both.home.parent, api).up()
    assert first is not None
    assert not alive(first, both.home / "acme-sandbox")
    both.up()
    second = pids(both)["acme-sandbox"]
    make_stack(both.home.parent, api).down()
    assert second is not None
    assert not alive(second, both.home / "acme-sandbox")


def test_failing_migrations_stop_up_with_their_last_line(make_stack: Callable[..., Stack]) -> None:
    it = make_stack(migrate="import sys; sys.exit('the role is missing')")
    with pytest.raises(StackError, match=r"the role is missing; see .*migrate\.log"):
        it.up()


def test_a_service_that_does_not_start_says_why(make_stack: Callable[..., Stack]) -> None:
    broken = service("api", "PORT", code="import sys; sys.exit('JWT_ISSUER is required')")
    with pytest.raises(StackError, match=r"api did not become ready: JWT_ISSUER is required; see .*api/log"):
        make_stack(None, broken).up()


def test_up_works_below_a_folder_that_nobody_else_may_enter(make_stack: Callable[..., Stack]) -> None:
    """As `mktemp -d` makes them, and with a space in the name; as root, Postgres then lives elsewhere."""
    folder = Path(subprocess.run(["mktemp", "-d"], check=True, capture_output=True, text=True).stdout.strip())
    try:
        it = make_stack(folder / "user core")
        it.up()
        assert all(pids(it).values())
        account = accounts.server_account()
        assert it.postgres.place.is_relative_to(folder) == (account is None)
        assert environment(it.home)["PII_ENCRYPTION_KEY_ID"] == f"local://{folder}/user%20core/.dev/kms-local.json"
        it.down()
        if account:
            subprocess.run(["rm", "-r", str(it.postgres.place)], check=True)
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)


# No room --------------------------------------------------------------------------------------------------------------


def test_too_little_memory_is_said_before_anything_starts(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_memory", lambda: 100_000_000)
    it = make_stack()
    with pytest.raises(StackError, match=r"100 MB of memory are free and the stack needs [0-9]+ MB: close"):
        it.up()
    assert not any(pids(it).values())
    monkeypatch.setattr(room, "free_memory", lambda: 600_000_000)
    with pytest.raises(StackError, match="USERCORE_DEV_KAFKA=mock"):
        room.check_memory("apache")
    room.check_memory("mock")


def test_too_little_disk_is_said_before_anything_starts(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "DISK_NEEDED_AT_FIRST", 10**18)
    it = make_stack()
    with pytest.raises(StackError, match=r"are free on the disk that holds .*: delete something there"):
        it.up()
    assert not any(pids(it).values())


def test_a_disk_that_fills_up_on_the_way_is_named(
    make_stack: Callable[..., Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_home: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(stack, "make_keys", full)
    it = make_stack()
    with pytest.raises(StackError, match=r"The disk that holds .* is full: free about 500 MB there"):
        it.up()


def test_an_instance_that_cannot_be_written_leaves_nothing_half_made(server_home: Callable[[str], Path]) -> None:
    """No file may grow beyond 64 KiB, so initdb fails in the middle as on a full disk."""
    home = server_home("small")
    code = f"""
        import resource, signal
        from pathlib import Path
        from usercore.devstack.postgres import Postgres
        from usercore.devstack.processes import StackError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        try:
            Postgres(Path({str(home)!r})).start()
        except StackError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True)
    assert "initdb failed" in done.stdout
    assert {file.name for file in home.iterdir()} == {"log", "password.postgres"}


# The terminal and the commands ----------------------------------------------------------------------------------------


def test_follower_gives_new_lines_also_of_a_log_started_anew(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    follower = Follower(log)
    with log.open("a") as out:
        out.write("one\ntw")
        out.flush()
        assert list(follower.lines()) == ["one"]
        out.write("o\n")
    log.replace(tmp_path / "log.1")
    log.write_text("three\n")
    assert list(follower.lines()) == ["two", "three"]
    follower.close()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('{"ts":"t","level":"info","event":"started","port":1}', "info started port=1"),
        ("plain text", "plain text"),
        ("[1]", "[1]"),
        ('{"a":1}', '{"a":1}'),
    ],
)
def test_readable(line: str, shown: str) -> None:
    assert readable(line) == shown


def test_checkout_is_this_repository_from_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("USERCORE_HOME", raising=False)
    assert checkout() == Path(__file__).resolve().parents[1]
    monkeypatch.setenv("USERCORE_HOME", str(tmp_path))
    assert checkout() == tmp_path


def test_doctor_on_a_stack_that_does_not_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from usercore.devstack.commands import doctor

    monkeypatch.setenv("USERCORE_HOME", str(tmp_path))
    done = CliRunner().invoke(doctor, ["--json"])
    assert done.exit_code == 0, done.output
    assert '"name": "stack"' in done.output
    assert list(tmp_path.iterdir()) == []
