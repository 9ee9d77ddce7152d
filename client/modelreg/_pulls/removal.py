"""Deleting files that may be read-only, open, or gone already."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def remove_path(path: Path) -> bool:
    """Delete a file or a folder, and tell whether it is gone. Never follows links, and never raises OSError."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            if sys.version_info >= (3, 12):
                shutil.rmtree(path, onexc=_make_writable)
            else:
                shutil.rmtree(path, onerror=_make_writable)
        else:
            try:
                path.unlink()
            except PermissionError:
                _make_writable(os.unlink, path, None)
    return not os.path.lexists(path)


@contextmanager
def removed_unless(is_kept: bool, *paths: Path) -> Iterator[None]:
    """Delete paths at the end of a block, unless a later process may use them."""
    try:
        yield
    finally:
        if not is_kept:
            for path in paths:
                remove_path(path)


def move_away(path: Path, folder: Path) -> Path | None:
    """Rename a file or a folder to a new name in a folder of the same disk. Return None if that is not possible."""
    target = folder / f"trash-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    except OSError:
        return None
    return target


def _make_writable(function: Callable[..., Any], path: Any, _: Any) -> None:
    """Delete what could not be deleted, after making it writable: Windows refuses to delete read-only files."""
    if os.name == "nt":
        os.chmod(path, stat.S_IWRITE)  # noqa: PTH101
        function(path)
