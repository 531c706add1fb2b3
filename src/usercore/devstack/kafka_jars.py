"""Apache Kafka's jars: fetched once through Maven, held to committed checksums, kept in the user's cache."""

import hashlib
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

from usercore.devstack.processes import Say, StackError, disk_full, disk_is_full, locked, log_tail

OLDEST_JAVA = 17


def version() -> str:
    found = re.search(r"<kafka.version>([0-9.]+)<", files("usercore.devstack").joinpath("kafka-pom.xml").read_text())
    assert found, "kafka-pom.xml names the version"
    return found[1]


def checksums() -> dict[str, str]:
    """SHA-256 by file name."""
    lines = files("usercore.devstack").joinpath("kafka-jars.sha256").read_text().splitlines()
    return {name: digest for digest, name in (line.split() for line in lines)}


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "usercore" / f"kafka-{version()}"


def java() -> str | None:
    """A java program that is new enough for the broker, if there is one."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin") if home else None
    program = program or shutil.which("java")
    if program is None:
        return None
    answer = subprocess.run([program, "-version"], check=False, capture_output=True, text=True).stderr
    found = re.search(r'version "([0-9]+)', answer)
    return program if found and int(found[1]) >= OLDEST_JAVA else None


def cached() -> bool:
    return all((cache() / name).exists() for name in checksums())


def fetch(say: Say) -> Path:
    """The folder with exactly the jars of the committed list."""
    place = cache()
    if cached():
        return place
    try:
        with locked(place.with_suffix(".lock"), "kafka: another process is fetching Apache Kafka, waiting", say):
            if not cached():
                say(f"kafka: fetching Apache Kafka {version()} with Maven (45 MB, once)")
                _fetch(place)
    except OSError as error:
        if disk_is_full(str(error)):
            raise disk_full(place) from error
        raise StackError(f"Apache Kafka cannot be kept in {place}: {error.strerror}; set XDG_CACHE_HOME.") from error
    return place


def _fetch(place: Path) -> None:
    making = place.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)
    making.mkdir()
    pom = making / "pom.xml"
    pom.write_text(files("usercore.devstack").joinpath("kafka-pom.xml").read_text())
    log = place.with_suffix(".log")
    command = ["mvn", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={making}"]
    with log.open("wb") as out:
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    if done.returncode:
        if disk_is_full(log.read_text(errors="replace")):
            raise disk_full(place)
        raise StackError(f"Maven could not fetch Apache Kafka: {log_tail(log, 1)}; see {log}.")
    pom.unlink()
    _verify(making)
    making.rename(place)


def _verify(folder: Path) -> None:
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.iterdir()}
    expected = checksums()
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise StackError(f"Maven delivered other jars than kafka-jars.sha256 lists ({', '.join(wrong)}): not started.")
