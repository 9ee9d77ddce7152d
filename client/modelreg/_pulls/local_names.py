"""Names of files that the registry sends, checked before they become paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from modelreg._folders.portable_names import PathSet, problem_of_path
from modelreg.errors import IntegrityError

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
_WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*]')
_WINDOWS_DEVICE = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\u00b9\u00b2\u00b3])( *(?:\..*)?)")
_MAX_BYTES = 255
_SHA256 = re.compile(r"[0-9a-f]{64}")


def local_file_name(name: str, *, is_windows: bool = os.name == "nt") -> str:
    """Return the name of a file on this machine.

    On Windows, what it forbids is replaced by `_`.

    Raises:
        IntegrityError: The name could lead out of its folder, or is no name at all.
    """
    problem = ""
    if name in ("", ".", ".."):
        problem = "is no name of a file"
    elif "/" in name or "\\" in name:
        problem = "has a slash or a backslash"
    elif _CONTROLS.search(name):
        problem = "has control characters"
    elif len(name.encode(errors="replace")) > _MAX_BYTES:
        problem = f"has more than {_MAX_BYTES} bytes"
    if problem:
        raise IntegrityError(
            f"The registry sent the file name {name[:300]!r}, which {problem}. The file cannot be stored under it; "
            "read it with Registry.open."
        )
    if not is_windows:
        return name
    name = _WINDOWS_FORBIDDEN.sub("_", name)
    name = _WINDOWS_DEVICE.sub(r"\1_\2", name) if _WINDOWS_DEVICE.fullmatch(name) else name
    return name[:-1] + "_" if name[-1] in ". " else name


def checked_sha256(text: str) -> str:
    """Return a SHA-256 that the registry sent.

    Raises:
        IntegrityError: The text is none.
    """
    if not _SHA256.fullmatch(text):
        raise IntegrityError(f"The registry sent {text[:100]!r}, which is no SHA-256.")
    return text


def folder_name(file_name: str) -> str:
    """Return the name of the folder that a ZIP is unpacked to."""
    stem = file_name[:-4] if file_name.lower().endswith(".zip") else file_name
    return stem.rstrip(". ") or "folder"


def checked_paths(paths: Iterable[str]) -> None:
    """Check paths inside an artifact before they become paths of this machine.

    Raises:
        IntegrityError: One leaves its folder, cannot exist on every platform, or is the same file as another one.
    """
    seen = PathSet()
    for path in paths:
        problem = problem_of_path(path)
        if problem is None and (other := seen.add(path)) is not None:
            problem = f"is the same file as {other[:200]!r} on some platforms"
        if problem is not None:
            raise IntegrityError(
                f"The artifact has the path {path[:200]!r}, which {problem}. Read the file with Registry.open, or pull "
                "the artifact without `files`.",
                reason="ARCHIVE_UNSAFE",
            )
