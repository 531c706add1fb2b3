"""Log lines: one JSON object each on stdout, made of named fields that cannot carry personal data.

A line has `ts`, `level`, `event`, `logger`, the request's ids, and fields from the list below. An event's name is a
constant; there are no free-text messages. Exceptions appear as class names and frames, because their messages may hold
values. Records of libraries go the same way: where they were logged, never what they said.
"""

import logging
import re
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from uuid import UUID

import msgspec

from usercore.settings import LogLevel

FIELDS = frozenset(
    """
    user_id actor_id event_id action kyc_case_id attempt_id hold_id consent_id vendor status previous_status
    request_id trace_id route method code reason client_id access purpose outcome state source
    duration_ms topic partition offset lag count size attempt limit retry_s
    error errors component task address port version kind retention_class epoch migration statement table signal
    """.split()  # noqa: SIM905 - one line a group reads better than 48 strings
)
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_FRAMES = 24

Field = str | int | float | bool | UUID | Sequence[str] | None


class LogContext(msgspec.Struct, frozen=True):
    """The ids that every line of a request (or of a consumed record) carries."""

    request_id: str | None = None
    trace_id: str | None = None


context: ContextVar[LogContext | None] = ContextVar("log_context", default=None)


@contextmanager
def bound(request_id: str | None = None, trace_id: str | None = None) -> Generator[None, None, None]:
    """Lines written inside carry these ids."""
    token = context.set(LogContext(request_id, trace_id))
    try:
        yield
    finally:
        context.reset(token)


class _Sink:
    """Where lines go. Until `configure_logging`, warnings and errors go to stderr: commands own their stdout."""

    threshold = _LEVELS["warning"]
    configured = False
    _second = -1
    _prefix = ""

    def write(self, level: str, event: str, fields: dict[str, object]) -> None:
        ids = context.get()
        line: dict[str, object] = {"ts": self.now(), "level": level, "event": event}
        if ids is not None:
            if ids.request_id is not None:
                line["request_id"] = ids.request_id
            if ids.trace_id is not None:
                line["trace_id"] = ids.trace_id
        line.update(fields)
        self.send([line])

    def send(self, lines: Sequence[object]) -> None:
        # Bytes past the text layer, which would encode them again; looked up each time, for tests replace it.
        out = (sys.stdout if self.configured else sys.stderr).buffer
        out.write(_encoder.encode_lines(lines))
        out.flush()

    def now(self) -> str:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._prefix}.{int((now - second) * 1000):03d}Z"


_encoder = msgspec.json.Encoder()
_sink = _Sink()
_known_events: set[str] = set()


def check_event(event: str) -> None:
    """Raises TypeError unless the event is a plain name: a sentence or an f-string could carry a value."""
    if event not in _known_events:
        if not re.fullmatch("[a-z][a-z0-9_]{2,63}", event):
            raise TypeError("a log event is a snake_case name")
        _known_events.add(event)


def check_fields(fields: dict[str, Field]) -> None:
    """Raises TypeError for a field that is not in FIELDS or that is not a scalar (or a sequence of names)."""
    if not FIELDS.issuperset(fields):
        raise TypeError(f"not a log field: {', '.join(sorted(set(fields) - FIELDS))}")
    for name, value in fields.items():
        if type(value) not in _SCALARS and not isinstance(value, (str, int, float, UUID, tuple, list)):
            raise TypeError(f"log field {name} is a {type(value).__name__}")


_SCALARS = frozenset((str, int, float, bool, UUID, type(None)))


class Log:
    """Writes events of one module. The same fields are checked whether or not the level is shown."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name.removeprefix("usercore.")

    def debug(self, event: str, **fields: Field) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Field) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, exc: BaseException | None = None, **fields: Field) -> None:
        self._write("warning", event, fields, exc)

    def error(self, event: str, exc: BaseException | None = None, **fields: Field) -> None:
        self._write("error", event, fields, exc)

    def _write(self, level: str, event: str, fields: dict[str, Field], exc: BaseException | None = None) -> None:
        check_event(event)
        check_fields(fields)
        if _LEVELS[level] >= _sink.threshold:
            line: dict[str, object] = {"logger": self.name, **fields}
            if exc is not None:
                line.update(described(exc))
            _sink.write(level, event, line)


def timestamp() -> str:
    """Now, as a line's `ts`."""
    return _sink.now()


def write(lines: Sequence[msgspec.Struct]) -> None:
    """Lines of the level info that are complete, in one system call. Their names are checked by a test."""
    if lines and _sink.threshold <= _LEVELS["info"]:
        _sink.send(lines)


def logger(name: str) -> Log:
    return Log(name)


def described(exc: BaseException) -> dict[str, object]:
    """An exception as its class, its causes' classes and its frames (file:line:function): never its message."""
    causes: list[str] = []
    cause = exc.__cause__ or exc.__context__
    while cause is not None and len(causes) < 8:
        causes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    found: dict[str, object] = {"error": type(exc).__name__, "frames": _frames(exc.__traceback__)}
    if causes:
        found["causes"] = causes
    return found


def _frames(traceback: TracebackType | None) -> list[str]:
    frames: list[str] = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{_short(code.co_filename)}:{traceback.tb_lineno}:{code.co_name}")
        traceback = traceback.tb_next
    return frames[-_FRAMES:]


def _short(path: str) -> str:
    """`usercore/users/actions.py` rather than where it is installed."""
    return "/".join(path.replace("\\", "/").rsplit("/", 3)[-3:])


class _LibraryHandler(logging.Handler):
    """Records of libraries: who logged, where in their source, and what class of exception. Not what they said."""

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, object] = {
            "logger": record.name,
            "at": f"{_short(record.pathname)}:{record.lineno}",
        }
        if record.exc_info and record.exc_info[1] is not None:
            fields.update(described(record.exc_info[1]))
        level = "error" if record.levelno >= 40 else "warning" if record.levelno >= 30 else "info"
        _sink.write(level, "library_log", fields)


def configure_logging(level: LogLevel) -> None:
    """Send our events and the libraries' records to stdout. Libraries speak from warning on, uvicorn from info."""
    _sink.threshold = _LEVELS[level]
    _sink.configured = True
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(logging.WARNING)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    logging.getLogger("uvicorn").setLevel(max(_LEVELS[level], logging.INFO))
