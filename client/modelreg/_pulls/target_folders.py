"""Folders of the caller that a pulled folder becomes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from modelreg._checksums import has_checksum, parse_checksum
from modelreg._pulls.removal import remove_path
from modelreg.errors import InvalidArgument

_PREFIX = ".modelreg-"


class TargetFolder:
    """A folder that gets exactly the files of a model.

    A kill leaves the folder as it was, or without files, or with all of them: a folder that was made ready beside it
    gets its name. Where that is not possible (a mount point, the current directory, a parent that cannot be written),
    the files are moved one by one.

    Args:
        path: The folder, which may be missing.
        overwrite: Whether files in it may be deleted.

    Raises:
        InvalidArgument: `overwrite` is set for a folder that nobody means to delete.
    """

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        self._path = Path(os.path.realpath(path))
        self._overwrite = overwrite
        if overwrite:
            self._check_expendable()

    def has_files(self) -> bool:
        """Tell whether there is something in the folder already.

        Raises:
            NotADirectoryError: A file has the name.
        """
        try:
            return bool(self._names())
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise NotADirectoryError(errno.ENOTDIR, "A file has the name of the folder", str(self._path)) from None

    def require_room(self) -> None:
        """Check that the folder may be filled.

        Raises:
            FileExistsError: It is not empty.
            NotADirectoryError: A file has the name.
        """
        if not self._overwrite and self.has_files():
            raise FileExistsError(
                errno.EEXIST,
                "The folder has files, and is not this model. Name a new folder. overwrite=True would delete what the "
                "model does not have",
                str(self._path),
            )

    def holds(self, files: Mapping[str, tuple[int, str]]) -> bool:
        """Tell whether the folder has exactly these files: size and checksum by the path."""
        found: set[str] = set()
        for folder, _, names in os.walk(self._path):
            for name in names:
                inside = Path(folder, name).relative_to(self._path).as_posix()
                if not inside.startswith(_PREFIX):
                    found.add(inside)
            if len(found) > len(files):
                return False
        if found != set(files):
            return False
        try:
            return all(
                (self._path / inside).stat().st_size == size
                and has_checksum(self._path / inside, parse_checksum(checksum))
                for inside, (size, checksum) in files.items()
            )
        except OSError:
            return False

    def workspace(self) -> Path:
        """Return a folder on the same disk for what is not complete, in which only `_PREFIX` names are used.

        Raises:
            OSError: The folder cannot be made.
        """
        parent = self._path.parent
        parent.mkdir(parents=True, exist_ok=True)
        if self._is_replaceable() and _is_writable(parent):
            return parent
        self._path.mkdir(exist_ok=True)
        return self._path

    def path_in_workspace(self, workspace: Path, key: str, suffix: str) -> Path:
        """Return the path of something that is not complete."""
        # Not with the name of the folder, which may be as long as the file system allows.
        digest = hashlib.sha256(f"{key}/{self._path.name}".encode(errors="surrogatepass")).hexdigest()
        return workspace / f"{_PREFIX}{digest[:32]}.{suffix}"

    def land(self, ready: Path) -> None:
        """Give the files of a folder in the workspace their place.

        Raises:
            FileExistsError: The folder is not empty any more.
            OSError: The file system refuses it.
        """
        self.require_room()
        if ready.parent == self._path:
            self._move_into(ready)
            return
        old: Path | None = None
        if self._path.exists():
            with suppress(OSError):
                shutil.copymode(self._path, ready)
            old = self._path.with_name(f"{_PREFIX}{uuid.uuid4().hex}.old")
            self._path.rename(old)
        try:
            ready.rename(self._path)
        except OSError:
            if old is not None:
                old.rename(self._path)
            raise
        if old is not None:
            remove_path(old)

    def _move_into(self, ready: Path) -> None:
        trash = self._path / f"{_PREFIX}{uuid.uuid4().hex}.old"
        old = [name for name in self._names() if name != ready.name]
        if old:
            trash.mkdir()
            for name in old:
                (self._path / name).rename(trash / name)
        for found in sorted(ready.iterdir()):
            found.rename(self._path / found.name)
        ready.rmdir()
        remove_path(trash)

    def _names(self) -> list[str]:
        return [name for name in os.listdir(self._path) if not name.startswith(_PREFIX)]  # noqa: PTH208

    def _is_replaceable(self) -> bool:
        """Tell whether another folder can get the name: nobody may be in the folder, and it is no mount point."""
        try:
            current = Path(os.path.realpath(Path.cwd()))
        except OSError:
            return True
        return not os.path.ismount(self._path) and current != self._path and self._path not in current.parents

    def _check_expendable(self) -> None:
        protected = {Path(self._path.anchor)}
        with suppress(RuntimeError, OSError):
            protected.add(Path(os.path.realpath(Path.home())))
        if any(self._path == found or self._path in found.parents for found in protected):
            raise InvalidArgument(
                f"to: {self._path} would lose everything that the model does not have, because overwrite is set. Name "
                "a folder for the model alone."
            )


def refuse_inside(cache: Path, path: str | os.PathLike[str]) -> None:
    """Check that a folder of the caller is not in the cache, whose content is that of models alone.

    Raises:
        InvalidArgument: It is.
    """
    directory, folder = Path(os.path.realpath(cache)), Path(os.path.realpath(path))
    if folder == directory or directory in folder.parents:
        raise InvalidArgument(
            f"to: {folder} is in the cache {directory}, which only pulls without `to` write to. Name a folder of your "
            "own."
        )


def _is_writable(folder: Path) -> bool:
    """Tell whether files can be made in a folder. The mode does not tell for root, on Windows, and with ACLs."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
