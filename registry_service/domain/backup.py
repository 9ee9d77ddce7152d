"""The port to a copy of the database that fits the objects which are copied beside it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry_service.domain.events import LogHead

OBJECTS = "objects.tsv"
"""The file of a copy that has a line for each object its models refer to: key, size in bytes, SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCopy:
    """A table in a file of its own, `<name>.copy`."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCopy:
    """What was copied, all as it was at one moment."""

    revision: str
    """Of the schema."""
    tables: tuple[TableCopy, ...]
    """Those that others refer to come first."""
    log_head: LogHead


class DatabaseCopier(Protocol):
    """Copies the database to files, and back."""

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Keeps every server from deleting objects until the end of the block, or until we die.

        What is given raises where that was so only until now.

        Raises:
            SourceError: Another backup is under way.
        """

    def copy(self, folder: Path) -> DatabaseCopy:
        """Writes every table, and OBJECTS, into an empty folder, all as of one moment.

        Uploads are left out, and with them the bytes that no model refers to.
        """

    def check_target(self, revision: str, backup: str) -> bool:
        """Tells whether the rows of a backup are there already, from a restoration that has not finished.

        Raises:
            SourceError: `restore` of a copy with this revision would.
        """

    def restore(self, folder: Path, copy: DatabaseCopy, backup: str) -> None:
        """Makes an empty database what it was when it was copied, and notes the backup there until `finish`.

        Raises:
            SourceError: It is not empty, or has another revision.
        """

    def finish(self, *, is_complete: bool) -> None:
        """Brings the database to this program's schema; forgets the backup where its restoration is complete."""
