"""Structured logs: one JSON object a line on standard error.

Each line's `log` says what it is: `access`, a call that has ended; `audit`, a
change that is in the audit log; `service`, whatever else there is to tell.
"""

import json
import logging
import sys
import threading
import time
from collections import deque
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the call that the running code serves; every line logged meanwhile bears it."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""Id of the trace that the call belongs to, 32 hexadecimal digits; empty without one. On every line, as the above."""

_IDS = (("request_id", request_id), ("trace_id", trace_id))

AUDIT = "registry_service.audit"
"""Name of the logger of changes; its lines are written whatever the level."""

# What a pipe takes at once (PIPE_BUF): with more, lines of several processes could get into one another.
_BATCH_BYTES = 4096
_BATCH_SECONDS = 0.05
_MOST_WAITING = 1_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"} | dict(_IDS).keys()


# Made once: json.dumps makes one for every line.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object; what is given as `extra` becomes members of it."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without its end."""
        members = record.__dict__
        line: dict[str, object] = {
            "time": self._time(record.created),
            "level": record.levelname,
            "log": members.get("log", "service"),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, variable in _IDS if (value := members.get(name, variable.get()))}
        line |= {key: value for key, value in members.items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encode(line)

    def _time(self, created: float) -> str:
        """Writes a time in UTC (ISO 8601, milliseconds); most lines share their second with the one before."""
        second = int(created)
        known, text = self._second
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text
        return f"{text}.{int((created - second) * 1000):03d}+00:00"


class BatchHandler(logging.Handler):
    """Lets lines of the access log wait for up to 50 ms, and hands several on as one; any other line hurries them.

    So a call leaves its line to another thread, and waits for none that writes
    one. What has not been handed on is lost with a process that is killed.
    """

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._target = target
        self._records: deque[logging.LogRecord] = deque()
        self._begun = threading.Event()
        self._is_closed = False
        threading.Thread(target=self._flush_late, name="log-batch", daemon=True).start()

    def handle(self, record: logging.LogRecord) -> bool:
        """See logging.Handler. Takes no lock for a line that may wait."""
        # They are those of the calling thread, also where it has none: another may format the line.
        for name, variable in _IDS:
            record.__dict__[name] = variable.get()
        self._records.append(record)
        if record.__dict__.get("log") != "access" or len(self._records) >= _MOST_WAITING:
            self.flush()
        elif not self._begun.is_set():
            self._begun.set()
        return True

    def flush(self) -> None:
        """See logging.Handler."""
        self.acquire()
        try:
            lines: list[str] = []
            size = 0
            for _ in range(len(self._records)):
                line = self._line(self._records.popleft())
                size += len(line) + 1  # it is ASCII
                if size > _BATCH_BYTES:
                    self._hand_on(lines)
                    lines, size = [], len(line) + 1
                lines.append(line)
            self._hand_on(lines)
        finally:
            self.release()

    def close(self) -> None:
        """See logging.Handler; closes the other handler, too."""
        self._is_closed = True
        self._begun.set()
        self.flush()
        self._target.close()
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:  # noqa: BLE001 - as all handlers do
            self.handleError(record)
            return _encode({"log": "service", "level": "ERROR", "message": "a line could not be written"})

    def _hand_on(self, lines: list[str]) -> None:
        if lines:
            self._target.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))

    def _flush_late(self) -> None:
        while self._begun.wait() and not self._is_closed:
            time.sleep(_BATCH_SECONDS)
            self._begun.clear()
            self.flush()


class _LossyMixin(logging.Handler):
    """Loses a line that cannot be written, mostly for want of space: a traceback could not be written, either."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the base class's name)
        """See logging.Handler."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _ErrorHandler(_LossyMixin, logging.StreamHandler[TextIO]):
    """Writes to standard error."""


class _FileHandler(_LossyMixin, logging.FileHandler):
    """Writes to a file."""


def configure(level: str, file: Path | None = None) -> None:
    """Sends all logs of at least this level as JSON lines to the end of a file, else to standard error.

    Lines of the audit log are written at any level.
    """
    handler = _ErrorHandler(sys.stderr) if file is None else _FileHandler(file, encoding="utf-8")
    logging.basicConfig(level=level, handlers=[BatchHandler(handler)], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(AUDIT).setLevel(logging.INFO)
    # Nobody reads where in the code, and in which thread, a line was written; to find out is half of its cost.
    logging._srcfile = None  # noqa: SLF001 - documented under "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Their INFO is about themselves: connections, migrations that do not run.
    for name in ("alembic", "httpcore", "httpx", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
