"""The file that says where a watch resumes after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelreg._files import write_private_file
from modelreg._pulls.path_locks import PathLock
from modelreg.errors import Conflict, InvalidArgument

_VERSION = 1
_MAX_BYTES = 1024 * 1024


class ResumeFile:
    """The file of one watch, which no other watch uses at the same time.

    Args:
        path: The file. Its folder is made if there is none.
        filter: The filter of the watch, to which the tokens belong.
    """

    def __init__(self, path: Path, filter: str) -> None:  # noqa: A002
        self.path = path
        self._filter = filter
        self._lock = PathLock(path.with_name(f"{path.name}.lock"))

    def open(self) -> str:
        """Return the token of the file; empty if there is no file.

        Raises:
            Conflict: Another watch uses the file. The slower of the two would lose events.
            InvalidArgument: The file is of another filter, or is not one of a watch.
            OSError: The file cannot be read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # None: a file system without locks. They only tell of a mistake.
        if self._lock.acquire() is False:
            raise Conflict(f"Another watch uses {self.path}. Name another file for each watch.")
        try:
            with self.path.open("rb") as file:
                content = file.read(_MAX_BYTES)
        except FileNotFoundError:
            return ""
        saved = _parsed(content)
        if saved is None:
            raise InvalidArgument(
                f"{self.path} is damaged, or is not the resume file of a watch. Name another file; or delete it, and "
                "the watch starts with the next event."
            )
        if saved["filter"] != self._filter:
            raise InvalidArgument(
                f"{self.path} belongs to a watch with the filter {saved['filter']!r}. Name a file of its own for each "
                "filter."
            )
        token: str = saved["resume_token"]
        return token

    def save(self, token: str) -> None:
        """Replace the token, atomically.

        Raises:
            OSError: The file cannot be written. It has the token before.
        """
        content = {"version": _VERSION, "filter": self._filter, "resume_token": token}
        write_private_file(self.path, json.dumps(content).encode() + b"\n")

    def close(self) -> None:
        """Let another watch use the file."""
        self._lock.release()


def _parsed(content: bytes) -> dict[str, Any] | None:
    """Return what a file says, or None if it is not a resume file."""
    try:
        saved = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(saved, dict) or saved.get("version") != _VERSION:
        return None
    return saved if all(isinstance(saved.get(name), str) for name in ("filter", "resume_token")) else None
