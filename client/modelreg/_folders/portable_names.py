"""Names of files that every supported platform can have.

A folder that is pushed on one platform is pulled on another one, so a name that Windows forbids is refused everywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

MAX_NAME_BYTES = 255
"""Longest name of a file or folder in UTF-8: that of Linux."""
MAX_PATH_BYTES = 1024
"""Longest path inside a folder in UTF-8: about what macOS allows for a whole path."""

_DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\..*)?")
_PROBLEMS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("is empty or has an empty part", lambda name: not name),
    ("is not the name of a file", lambda name: name in {".", ".."}),
    ("has a slash", lambda name: "/" in name),
    ("has control characters", re.compile(r"[\x00-\x1f\x7f]").search),
    ('has one of < > : " | ? * \\, which Windows forbids', re.compile(r'[<>:"|?*\\]').search),
    ("ends in a dot or a space, which Windows drops", lambda name: name[-1] in ". "),
    ("is the name of a device on Windows", _DEVICE.fullmatch),
)


def problem_of_name(name: str) -> str | None:
    """Return what is wrong with the name of one file or folder, or None. The sentence has no subject."""
    for problem, is_found in _PROBLEMS:
        if is_found(name):
            return problem
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return f"has more than {MAX_NAME_BYTES} bytes" if size > MAX_NAME_BYTES else None


def problem_of_path(path: str) -> str | None:
    """Return what is wrong with a path inside a folder, whose separator is `/`, or None."""
    if len(path) > MAX_PATH_BYTES or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        return f"has more than {MAX_PATH_BYTES} bytes"
    if path.startswith("/"):
        return "is an absolute path"
    segments = path.split("/")
    if ".." in segments:
        return "leaves the folder"
    return next((problem for segment in segments if (problem := problem_of_name(segment))), None)


class PathSet:
    """Paths of one folder, which finds those that are the same file on some platform.

    macOS and Windows ignore case, and macOS ignores how accents are encoded.
    """

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str) -> str | None:
        """Add the path of a file. Return the path that it collides with, or None."""
        return self._add(path, is_folder=False)

    def add_folder(self, path: str) -> str | None:
        """Add the path of a folder, which may be there already. Return the path that it collides with, or None."""
        return self._add(path, is_folder=True)

    def _add(self, path: str, *, is_folder: bool) -> str | None:
        parent = path.rpartition("/")[0]
        # A known folder has known parents.
        if parent and self._folders.get(folded(parent)) != parent and (other := self._add(parent, is_folder=True)):
            return other
        key = folded(path)
        file, folder = self._files.get(key), self._folders.get(key)
        if not is_folder:
            if file is None and folder is None:
                self._files[key] = path
            return file or folder
        if file is None and folder in {None, path}:
            self._folders[key] = path
            return None
        return file or folder


def folded(path: str) -> str:
    """Return a path in the form in which paths are compared."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
