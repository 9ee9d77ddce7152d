"""Structured logs: JSON objects, one a line, on standard error.

The member `log` of each line is its kind: `access` for a finished call, `audit` for
a change that is in the audit log, `service` for everything else.
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
"""Request id of the current call; a member of every line that the call logs."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""Id of the current call's trace, 32 hexadecimal digits; empty without a trace. Logged like the request id."""

_IDS = (("request_id", request_id), ("trace_id", trace_id))

AUDIT = "registry_service.audit"
"""Name of the logger of audit lines, which are written at any MIN_LOG_LEVEL."""

# The size of an atomic write to a pipe (PIPE_BUF): longer writes of several processes could be interleaved.
_BATCH_BYTES = 4096
_BATCH_SECONDS = 0.05
_MOST_WAITING = 1_000
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"} | dict(_IDS).keys()

# Created once, as json.dumps with options creates an encoder for every line.
_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; the values of `extra` become members."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (0, "")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without a newline."""
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
        """Return a time in UTC (ISO 8601, milliseconds). The seconds are cached, as most lines share them."""
        second = int(created)
        known, text = self._second
        if known != second:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text
        return f"{text}.{int((created - second) * 1000):03d}+00:00"


class BatchHandler(logging.Handler):
    """Collects lines of the access log for up to 50 ms and passes them on together. Any other line flushes at once.

    A call therefore never waits for its line to be written. If the process is killed, the collected lines are lost.
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
        """See logging.Handler. Takes no lock for a line of the access log."""
        # The ids belong to the calling thread, but another thread may format the line.
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
                size += len(line) + 1  # nearly all lines are ASCII
                if size > _BATCH_BYTES:
                    self._pass_on(lines)
                    lines, size = [], len(line) + 1
                lines.append(line)
            self._pass_on(lines)
        finally:
            self.release()

    def close(self) -> None:
        """See logging.Handler; closes the target too."""
        self._is_closed = True
        self._begun.set()
        self.flush()
        self._target.close()
        super().close()

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception:  # noqa: BLE001 - as logging.Handler does
            self.handleError(record)
            return _encode({"log": "service", "level": "ERROR", "message": "a log record could not be formatted"})

    def _pass_on(self, lines: list[str]) -> None:
        if lines:
            self._target.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))

    def _flush_late(self) -> None:
        while self._begun.wait() and not self._is_closed:
            time.sleep(_BATCH_SECONDS)
            self._begun.clear()
            self.flush()


class _LossyMixin(logging.Handler):
    """Drops a line that cannot be written, usually because the disk is full; a traceback could not be written too."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (inherited name)
        """See logging.Handler."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _ErrorHandler(_LossyMixin, logging.StreamHandler[TextIO]):
    """Writes to standard error."""


class _FileHandler(_LossyMixin, logging.FileHandler):
    """Writes to a file."""


def configure(level: str, file: Path | None = None) -> None:
    """Write log lines of at least this level as JSON to the end of a file, or to standard error without a file.

    Audit lines are written at any level.
    """
    handler = _ErrorHandler(sys.stderr) if file is None else _FileHandler(file, encoding="utf-8")
    logging.basicConfig(level=level, handlers=[BatchHandler(handler)], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(AUDIT).setLevel(logging.INFO)
    # The lines name neither source location nor thread, and to find them is half of the cost of a line.
    logging._srcfile = None  # noqa: SLF001 - documented under "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # At INFO these libraries log their internals, such as connections.
    for name in ("alembic", "httpcore", "httpx", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
