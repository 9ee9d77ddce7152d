"""The port to copies of the database that are consistent with a copy of the artifact store."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry_service.domain.events import LogHead

OBJECTS = "objects.tsv"
"""The file with a line for each object that the models refer to: key, size in bytes, SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCopy:
    """A table, copied to the file `<name>.copy`."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseCopy:
    """A consistent copy of the database."""

    revision: str
    """The revision of the schema."""
    tables: tuple[TableCopy, ...]
    """Tables follow the tables that they refer to."""
    log_head: LogHead


class DatabaseCopier(Protocol):
    """Copies the database to and from files."""

    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Prevent all servers from deleting objects until the end of the block or of this process.

        Yield a function that raises if the lock was lost.

        Raises:
            SourceError: Another backup is running.
        """

    def copy(self, folder: Path) -> DatabaseCopy:
        """Write every table, and OBJECTS, into an empty folder, from one snapshot.

        Leave out uploads, and thus the bytes that no model refers to.
        """

    def check_target(self, revision: str, backup: str) -> bool:
        """Tell whether the database has the rows of a backup from an unfinished restoration.

        Raises:
            SourceError: `restore` of a copy with this revision would raise it.
        """

    def restore(self, folder: Path, copy: DatabaseCopy, backup: str) -> None:
        """Restore a copy into an empty database, and record the backup there until `finish`.

        Raises:
            SourceError: The database is not empty, or has another revision.
        """

    def finish(self, *, is_complete: bool) -> None:
        """Migrate the database to the schema of this program, and remove the record of a complete restoration."""
