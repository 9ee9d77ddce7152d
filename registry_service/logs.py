"""Structured logs: one JSON object a line on standard error.

Each line's `log` says what it is: `access`, a call that has ended; `audit`, a
change that is in the audit log; `service`, whatever else there is to tell.
"""

import json
import logging
import sys
import time
from contextvars import ContextVar
from logging.handlers import RotatingFileHandler
from pathlib import Path

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the call that the running code serves; every line logged meanwhile bears it."""

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""Id of the trace that the call belongs to, 32 hexadecimal digits; empty without one. On every line, as the above."""

AUDIT = "registry_service.audit"
"""Name of the logger of changes; its lines are written whatever the level."""

_ROTATE_BYTES = 20 * 1024 * 1024
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
        if request := request_id.get():
            line["request_id"] = request
        if trace := trace_id.get():
            line["trace_id"] = trace
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


def configure(level: str, file: Path | None = None) -> None:
    """Sends all logs of at least this level as JSON lines to a file that is rotated, else to standard error.

    Lines of the audit log are written at any level.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        handler = RotatingFileHandler(file, maxBytes=_ROTATE_BYTES, backupCount=2, encoding="utf-8")
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.getLogger(AUDIT).setLevel(logging.INFO)
    # Nobody reads where in the code, and in which thread, a line was written; to find out is half of its cost.
    logging._srcfile = None  # noqa: SLF001 - documented under "Optimization"
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # Their INFO is about themselves: connections, migrations that do not run.
    for name in ("alembic", "httpcore", "httpx", "urllib3"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
