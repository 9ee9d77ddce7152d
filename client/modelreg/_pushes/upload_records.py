"""What is kept of an upload on this machine, so that the same push continues it after an interruption.

One file per upload, in `uploads` of the state directory: `<digest of registry, model and source>.json`. The process
that pushes holds the lock of the file beside it; another one that pushes the same thing makes an upload of its own.
Without a writable state directory, a push works all the same, but cannot be continued.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelreg._files import make_private_directory, write_private_file
from modelreg._logging import logger
from modelreg.directories import state_directory
from modelreg.errors import InvalidArgument

_STALE_SECONDS = 8 * 86_400
"""Longer than registries keep uploads that are not written to: 24 hours by default."""


@dataclass(frozen=True, kw_only=True)
class SavedUpload:
    """An upload that can be continued."""

    url: str
    """URL of the registry."""
    spec_digest: str
    """Digest of everything that the upload declares."""
    source: Mapping[str, Any]
    """What identifies the source: `Source.identity`."""
    idempotency_key: str
    upload_id: str = ""
    """Empty until the registry has answered."""


class UploadRecord:
    """The file of one upload, locked until `close`."""

    def __init__(self, path: Path, lock: Any) -> None:
        self._path = path
        self._lock = lock

    @property
    def is_kept(self) -> bool:
        """Whether the upload can be continued by another process."""
        return self._lock is not None

    def load(self) -> SavedUpload | None:
        """Return what is saved, or None."""
        if self._lock is None:
            return None
        try:
            return SavedUpload(**json.loads(self._path.read_bytes()))
        except (OSError, ValueError, TypeError):
            # Nothing, or the file of another version.
            return None

    def save(self, upload: SavedUpload) -> None:
        """Save an upload."""
        if self._lock is None:
            return
        try:
            write_private_file(self._path, json.dumps(asdict(upload), indent=1).encode())
        except OSError as error:
            logger.warning("this push cannot be continued after an interruption: %s", error)

    def remove(self) -> None:
        """Forget the upload."""
        if self._lock is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Unlock the file."""
        if self._lock is None:
            return
        # A process that waits for nothing and one that comes later can hold locks on different files then. If so, both
        # write to one upload, which takes longer but ends well.
        with suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()
        self._lock = None


def open_record(url: str, model: Mapping[str, Any], source: Mapping[str, Any] | None) -> UploadRecord:
    """Return the record of pushing a source to a registry as a model.

    Args:
        url: URL of the registry.
        model: What identifies the model: its project, name, version and precisions.
        source: `Source.identity`. None: nothing is kept.
    """
    # Imported when it is needed, as it takes as long as a tenth of everything else.
    import filelock  # noqa: PLC0415

    if source is None:
        return UploadRecord(Path(), None)
    key = json.dumps([url, model, source["path"]], sort_keys=True)
    try:
        directory = _directory()
        make_private_directory(directory)
        _remove_stale(directory)
        path = directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
        # Of this object, not of this thread: asyncio releases it in another one.
        lock = filelock.FileLock(path.with_suffix(".lock"), thread_local=False)
        lock.acquire(timeout=0)
    except (OSError, NotImplementedError, InvalidArgument) as error:
        # Timeout is an OSError as well.
        logger.info("this push cannot be continued after an interruption: %s", error)
        return UploadRecord(Path(), None)
    return UploadRecord(path, lock)


def is_upload_kept(path: str) -> bool:
    """Tell whether a push of a file or a folder has begun an upload that the same push can continue."""
    wanted = os.path.abspath(path)  # noqa: PTH100 - as the source has it
    with suppress(OSError, InvalidArgument):
        for found in _directory().glob("*.json"):
            with suppress(OSError, ValueError, AttributeError, KeyError, TypeError):
                saved = json.loads(found.read_bytes())
                if saved["upload_id"] and saved["source"]["path"] == wanted:
                    return True
    return False


def forget_upload(upload_id: str) -> None:
    """Remove the record of an upload, if there is one."""
    with suppress(OSError, InvalidArgument):
        for path in _directory().glob("*.json"):
            with suppress(OSError, ValueError, AttributeError):
                if json.loads(path.read_bytes()).get("upload_id") == upload_id:
                    path.unlink()


def _directory() -> Path:
    return state_directory() / "uploads"


def _remove_stale(directory: Path) -> None:
    before = time.time() - _STALE_SECONDS
    for path in directory.iterdir():
        with suppress(OSError):
            if path.suffix in (".json", ".lock", ".tmp") and path.stat().st_mtime < before:
                path.unlink()
