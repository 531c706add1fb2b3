"""What a plugin says aside while it works: log records of whatever logger, and what it prints."""

import contextlib
import io
import logging
from collections.abc import Generator


class Overheard(logging.Handler):
    """Gathers text."""

    def __init__(self) -> None:
        super().__init__(level=1)
        self._lines: list[str] = []
        # With bytes below: the service's own log writes there.
        self.printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="replace", write_through=True)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception as error:
            message = f"a record that cannot be formatted: {type(error).__name__}"
        self._lines.append(f"{message} {record.args!r} {record.exc_info!r}")

    def text(self) -> str:
        raw = self.printed.buffer
        assert isinstance(raw, io.BytesIO)
        return "\n".join([*self._lines, raw.getvalue().decode("utf-8", "replace")])


@contextlib.contextmanager
def overheard() -> Generator[Overheard]:
    """Listen, down to the debug level."""
    ear, root = Overheard(), logging.getLogger()
    level = root.level
    root.addHandler(ear)
    root.setLevel(1)
    try:
        with contextlib.redirect_stdout(ear.printed), contextlib.redirect_stderr(ear.printed):
            yield ear
    finally:
        root.setLevel(level)
        root.removeHandler(ear)
