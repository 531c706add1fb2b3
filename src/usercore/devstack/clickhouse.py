"""A ClickHouse server in one folder: an installed one, else Debian's package, fetched and unpacked for us alone."""

import base64
import http.client
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from usercore.devstack.processes import (
    Daemon,
    Say,
    StackError,
    disk_full,
    disk_is_full,
    locked,
    log_tail,
    quiet,
    remembered_port,
    remembered_secret,
    wait_until,
)

PACKAGE = "clickhouse-server"
USER = "usercore"

# Both old and new servers read the root element `yandex`.
CONFIG = """\
<yandex>
  <logger><level>warning</level><console>1</console></logger>
  <listen_host>127.0.0.1</listen_host>
  <tcp_port>{port}</tcp_port>
  <http_port>{http_port}</http_port>
  <path>{home}/data/</path>
  <tmp_path>{home}/tmp/</tmp_path>
  <users_config>users.xml</users_config>
  <default_profile>default</default_profile>
  <default_database>default</default_database>
  <mark_cache_size>67108864</mark_cache_size>
</yandex>
"""
# LowCardinality was an experiment when Debian's 18.16 was made, and is no setting of newer ones any more.
EXPERIMENT = "<allow_experimental_low_cardinality_type>1</allow_experimental_low_cardinality_type>"
USERS = """\
<yandex>
  <profiles><default>{settings}</default></profiles>
  <quotas><default></default></quotas>
  <users>
    <{user}>
      <password>{password}</password>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
    </{user}>
  </users>
</yandex>
"""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "usercore" / f"{PACKAGE}-{platform.machine()}"


def installed() -> Path | None:
    """The server program that is there already, ours or the system's."""
    found = shutil.which(PACKAGE, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    ours = cache() / "usr" / "sbin" / PACKAGE
    return Path(found) if found else ours if ours.exists() else None


def choose(say: Say) -> Path | None:
    """The server program; None where none can be had, or `USERCORE_DEV_CLICKHOUSE=off` asks for none."""
    if os.environ.get("USERCORE_DEV_CLICKHOUSE") == "off":
        return None
    if found := installed():
        return found
    missing = "no package of it here"
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        try:
            return _fetch(say)
        except StackError as error:
            missing = str(error)
    say(f"clickhouse: {missing}; the audit trail stays whole in Postgres")
    return None


def _fetch(say: Say) -> Path:
    """Debian's package and the libraries that the machine lacks, which apt verifies; nothing is installed."""
    place = cache()
    with locked(place.with_suffix(".lock"), "clickhouse: another process is fetching the server, waiting", say):
        if not place.exists():
            say("clickhouse: fetching Debian's package (17 MB, once)")
            making = place.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            packages = making / "packages"
            (packages / "partial").mkdir(parents=True)
            if _download(packages).returncode and os.geteuid() == 0:
                # A new machine has no lists of packages yet.
                subprocess.run(["apt-get", "-qq", "update"], check=False, capture_output=True)
            done = _download(packages)
            if done.returncode:
                raise StackError(f"apt-get could not fetch {PACKAGE}: {_last_line(done.stderr)}")
            for package in sorted(packages.glob("*.deb")):
                subprocess.run(["dpkg-deb", "-x", str(package), str(making / "root")], check=True)
            (making / "root").rename(place)
            shutil.rmtree(making)
    return place / "usr" / "sbin" / PACKAGE


def _download(packages: Path) -> subprocess.CompletedProcess[str]:
    # Without locks, for nothing of the system's is written: so it works for everybody.
    command = ["apt-get", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={packages}", "--download-only"]
    command += ["-y", "--no-install-recommends", "install", PACKAGE]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


class ClickHouse:
    """Loopback only, with a password."""

    def __init__(self, home: Path, program: Path, *, say: Say = quiet) -> None:
        self.home = home.resolve()
        self._program = program
        self._say = say
        self._daemon = Daemon(self.home)

    @property
    def port(self) -> int:
        return int((self.home / "port").read_text())

    def url(self, database: str = "default") -> str:
        password = remembered_secret(self.home / "password")
        return f"clickhouse://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    @property
    def version(self) -> str:
        """As the running server says itself; Debian's program does not tell."""
        secret = base64.b64encode(f"{USER}:{remembered_secret(self.home / 'password')}".encode()).decode()
        said = self._ask("/?query=select%20version()", {"Authorization": f"Basic {secret}"}) or ""
        return f"ClickHouse {said}".strip()

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"

    def pid(self) -> int | None:
        return self._daemon.pid()

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if self._runs_well():
            return
        self.stop()
        port = remembered_port(self.home / "port", "clickhouse", self._say)
        http_port = remembered_port(self.home / "port.http", "clickhouse", self._say)
        config = self.home / "config.xml"
        config.write_text(CONFIG.format(port=port, http_port=http_port, home=self.home))
        settings = EXPERIMENT if self._is_old() else ""
        users = self.home / "users.xml"
        users.touch(mode=0o600)
        users.write_text(USERS.format(user=USER, password=remembered_secret(self.home / "password"), settings=settings))
        self._daemon.start(["/usr/bin/env", *self._libraries(), str(self._program), f"--config-file={config}"])
        if self._runs_well():
            return
        text = self._daemon.log.read_text(errors="replace")
        self.kill()
        if disk_is_full(text):
            raise disk_full(self.home)
        raise StackError(f"ClickHouse did not start: {log_tail(self._daemon.log)}; see {self._daemon.log}.")

    def stop(self) -> None:
        self._daemon.stop()

    def kill(self) -> None:
        self._daemon.kill()

    def _is_old(self) -> bool:
        """Only servers since 19 have this option."""
        command = ["/usr/bin/env", *self._libraries(), str(self._program), "--version"]
        return subprocess.run(command, check=False, capture_output=True, cwd=self.home).returncode != 0

    def _libraries(self) -> list[str]:
        """Where the libraries of our own copy lie; an installed server finds its own."""
        if not self._program.is_relative_to(cache()):
            return []
        folders = [str(found) for found in sorted(cache().glob("**/lib/*-linux-gnu*")) if found.is_dir()]
        return [f"LD_LIBRARY_PATH={':'.join(folders)}"]

    def _runs_well(self) -> bool:
        return self.pid() is not None and wait_until(self._answers, lambda: self.pid() is not None, 30)

    def _answers(self) -> bool:
        # Not by connecting alone: the kernel still accepts for a server that was killed a moment ago.
        if self._ask("/ping") != "Ok.":
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=2).close()
        except OSError:
            return False
        return True

    def _ask(self, path: str, headers: Mapping[str, str] | None = None) -> str | None:
        """The server's words over HTTP; None when it has none."""
        try:
            port = int((self.home / "port.http").read_text())
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("GET", path, headers=headers or {})
                return connection.getresponse().read().decode().strip()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return None
