"""Folders as artifacts: planned and packed to be pushed, and unpacked when they were pulled.

plan = plan_folder("model/")
with plan.open() as packed:
    packed.read(plan.size_bytes)
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelreg._folders import ignore_rules, portable_names
from modelreg._folders.ignore_rules import IgnoreRules, is_ignored
from modelreg._folders.packed_form import FolderFile, FolderReader, PackedFiles
from modelreg._folders.unpacking import UnpackedFile, unpack_folder
from modelreg.errors import FieldViolation, InvalidArgument

__all__ = [
    "ALWAYS_IGNORED",
    "FolderFile",
    "FolderPlan",
    "FolderReader",
    "UnpackedFile",
    "plan_folder",
    "unpack_folder",
]

ALWAYS_IGNORED = frozenset({".git", "__pycache__", ".ipynb_checkpoints", ".DS_Store", ignore_rules.FILE_NAME})
"""Names that are always left out. No rule includes them again: `!*/` would publish the credentials in `.git/config`."""

_IGNORE_FILE_MAX_BYTES = 1 << 20
_MAX_ENTRIES = 1_000_000
"""Files and folders. Keeps links to folders that link to further folders from adding up without end."""
_MAX_PROBLEMS = 10
_LARGE_FILE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class FolderPlan:
    """What a push of a folder sends: the files of the folder at one time."""

    root: Path
    """The folder, absolute."""
    files: Sequence[FolderFile]
    """The files in the order of the packed form: by the bytes of their paths in UTF-8."""
    skipped: Sequence[str]
    """Paths that rules left out, sorted. Those of folders end in `/`, and what is in them is not listed."""
    warnings: Sequence[str]
    """Sentences for people, such as "notes/ has no files and is left out."."""
    _packed: PackedFiles = field(repr=False, compare=False)

    @property
    def size_bytes(self) -> int:
        """Size of the packed folder in bytes, known before a file is read."""
        return self._packed.size_bytes

    @property
    def fingerprint(self) -> str:
        """A digest of the paths, sizes, modification times and inodes of the files.

        It tells without reading the files whether a folder is likely to be what it was, for example to continue an
        upload. It is not the digest of the content.
        """
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(repr((file.path, file.size_bytes, file.mtime_ns, file.inode)).encode())
        return digest.hexdigest()

    def prepare(self) -> None:
        """Compute the CRC-32 of the files larger than 1 GiB.

        Optional. The header before a file has its CRC-32, so a reader first reads the whole file when it reaches it.
        A stream that waits for the reader meanwhile may be cut as idle.

        Raises:
            SourceChanged: A file is not the planned one any more.
            OSError: A file cannot be read.
        """
        for index, file in enumerate(self.files):
            if file.size_bytes > _LARGE_FILE_BYTES:
                self._packed.checksum(index)

    def open(self, start: int = 0) -> FolderReader:
        """Return a reader of the packed folder, in constant memory.

        Args:
            start: Position of the reader in bytes, for example where a dropped upload continues.
        """
        reader = FolderReader(self._packed)
        reader.seek(start)
        return reader


def plan_folder(path: str | os.PathLike[str], *, ignore: Iterable[str] = ()) -> FolderPlan:
    """List the files of a folder that a push would send. Reads no file but those called `.mregignore`.

    Left out are `ALWAYS_IGNORED`, and what the rules of `.mregignore` files match (the syntax of `.gitignore`; case
    always matters). Empty folders are left out with a warning. Links to files and folders inside the folder are
    followed. Modes and times are not sent.

    Args:
        path: The folder.
        ignore: More rules, which apply after those of the files.

    Raises:
        InvalidArgument: A link leads out of the folder, into `.git`, a loop, or nowhere; something is neither file nor
            folder; a name is not portable: Windows forbids it, or it differs from another one in case or in the
            encoding of accents alone; or there is no file. Lists up to 10 such problems. Or there are more than
            1,000,000 files and folders.
        OSError: The folder, or something in it, cannot be read.
    """
    if isinstance(ignore, str):
        raise InvalidArgument("ignore: must be a sequence of rules, not a text.")
    if not stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - raises what the caller expects of a missing folder
        raise NotADirectoryError(f"{os.fspath(path)} is not a folder.")
    root = os.path.realpath(path)
    walk = _Walk(root, list(ignore))
    try:
        walk.folder("", root, (root,), ())
    except RecursionError:
        raise InvalidArgument(f"The folder {root} has too many folders in one another.") from None
    problems = walk.problems
    if not problems and not walk.files:
        problems = [("", "has no files to push")]
    if problems:
        raise _refused(root, problems)
    files = tuple(sorted(walk.files, key=lambda file: file.path.encode()))
    return FolderPlan(
        root=Path(root),
        files=files,
        skipped=tuple(sorted(walk.skipped)),
        warnings=tuple(f"{folder}/ has no files and is left out." for folder in sorted(walk.empty)),
        _packed=PackedFiles(files),
    )


def _refused(root: str, problems: Sequence[tuple[str, str]]) -> InvalidArgument:
    shown = sorted(problems)[:_MAX_PROBLEMS]
    lines = [f"{path or root} {problem}." for path, problem in shown]
    if len(problems) > len(shown):
        lines.append(f"There are {len(problems) - len(shown)} more such problems.")
    lines.append(f"Change what is named, or leave it out with a rule in {ignore_rules.FILE_NAME}.")
    error = InvalidArgument(f"The folder {root} cannot be pushed. " + " ".join(lines), reason="FOLDER_NOT_PORTABLE")
    error.violations = tuple(FieldViolation(path, f"{problem}.") for path, problem in shown)
    return error


class _Walk:
    """A walk through a folder.

    Args:
        root: The folder, with links resolved.
        ignore: Rules of the caller.
    """

    def __init__(self, root: str, ignore: Sequence[str]) -> None:
        self._root = Path(root)
        self._own_rules = IgnoreRules(ignore)
        self._paths = portable_names.PathSet()
        self._entries = 0
        self.files: list[FolderFile] = []
        self.skipped: list[str] = []
        self.empty: list[str] = []
        self.problems: list[tuple[str, str]] = []

    def folder(self, path: str, real: str, ancestors: tuple[str, ...], rules: tuple[IgnoreRules, ...]) -> bool:
        """Walk through a folder, and return whether anything in it is packed.

        Args:
            path: Path inside the root. Empty for the root.
            real: Path in the file system, with links resolved.
            ancestors: `real` of the folders from the root to this one.
            rules: Rules of the `.mregignore` files from the root to the parent.
        """
        prefix = f"{path}/" if path else ""
        with os.scandir(real) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        if any(entry.name == ignore_rules.FILE_NAME for entry in entries):
            rules = (*rules, _rules_of(Path(real, ignore_rules.FILE_NAME), prefix))
        empty_before = len(self.empty)
        has_files = False
        for entry in entries:
            has_files |= self._entry(prefix + entry.name, entry, ancestors, rules)
        if not has_files and path:
            # The folders inside it are part of it.
            self.empty[empty_before:] = [path]
        return has_files

    def _entry(
        self,
        path: str,
        entry: os.DirEntry[str],
        ancestors: tuple[str, ...],
        rules: tuple[IgnoreRules, ...],
    ) -> bool:
        """Add an entry of a folder, and return whether anything of it is packed."""
        is_folder = _leads_to_folder(entry)
        if entry.name in ALWAYS_IGNORED or is_ignored(path, (*rules, self._own_rules), is_folder=is_folder):
            self.skipped.append(f"{path}/" if is_folder else path)
            return False
        self._entries += 1
        if self._entries > _MAX_ENTRIES:
            raise InvalidArgument(
                f"The folder {self._root} has more than {_MAX_ENTRIES} files and folders. Pack it into an archive, and "
                "push that."
            )
        problem = portable_names.problem_of_path(path)
        source = os.path.join(ancestors[-1], entry.name)  # noqa: PTH118 - many of them, and as text
        if problem is None and _is_link(entry):
            source, problem = self._resolved(source)
        if problem is None and is_folder and source in ancestors:
            problem = f"is a link to {source}, which it is in: a loop"
        if problem is not None:
            self.problems.append((_printable(path), problem))
            return True
        if is_folder:
            if (other := self._paths.add_folder(path)) is not None:
                self._collision(path, other)
                return True
            return self.folder(path, source, (*ancestors, source), rules)
        self._file(path, source)
        return True

    def _resolved(self, source: str) -> tuple[str, str | None]:
        """Return what a link leads to, and what is wrong with it."""
        try:
            real = os.path.realpath(source, strict=True)
        except FileNotFoundError:
            return source, "is a link to a file that does not exist"
        except OSError:
            # ELOOP, which each platform reports in its own way.
            return source, "is a link that cannot be followed: probably a loop"
        if not Path(real).is_relative_to(self._root):
            return source, f"is a link out of the folder, to {real}"
        if ".git" in Path(real).relative_to(self._root).parts:
            return source, "is a link into .git, which is never pushed"
        return real, None

    def _file(self, path: str, source: str) -> None:
        status = os.stat(source)  # noqa: PTH116 - many of them, and as text
        if not stat.S_ISREG(status.st_mode):
            self.problems.append((path, "is neither a file nor a folder"))
            return
        if not os.access(source, os.R_OK):
            raise PermissionError(f"{source} cannot be read: permission denied.")
        if (other := self._paths.add(path)) is not None:
            self._collision(path, other)
        self.files.append(FolderFile(path, status.st_size, source, status.st_mtime_ns, status.st_ino))

    def _collision(self, path: str, other: str) -> None:
        self.problems.append((path, f"and {other} are the same file on systems that ignore case or accents' encoding"))


def _rules_of(path: Path, base: str) -> IgnoreRules:
    """Return the rules of a `.mregignore` file."""
    if not path.is_file():
        return IgnoreRules(())
    with path.open("rb") as file:
        content = file.read(_IGNORE_FILE_MAX_BYTES + 1)
    if len(content) > _IGNORE_FILE_MAX_BYTES:
        raise InvalidArgument(f"{path} must have at most {_IGNORE_FILE_MAX_BYTES} bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"{path} must be UTF-8: {error}") from None
    return IgnoreRules(text.split("\n"), base)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link into a loop


def _is_link(entry: os.DirEntry[str]) -> bool:
    if entry.is_symlink():
        return True
    # A junction of Windows is a folder to DirEntry, but leads elsewhere like a link.
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return bool(tag) and tag == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", None)


def _printable(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()
