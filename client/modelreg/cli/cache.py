"""The command `cache`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modelreg.cli._frame import Group, with_session
from modelreg.cli._output import Column, note
from modelreg.cli._text import age, printable, size, utc

if TYPE_CHECKING:
    from modelreg.cache import CacheEntry
    from modelreg.cli._session import Session


@click.group("cache", cls=Group)
def cache_command() -> None:
    """Show and prune the cache of pulled artifacts.

    The cache is in MODELREG_CACHE, else in the platform's own place. Pushes never write to it. After a pull that
    downloads, the least recently used artifacts are deleted until the cache is within its limit:
    MODELREG_CACHE_MAX_BYTES (for example 50GB, or none), else 50 GB or half of the disk, whichever is less.
    """


_COLUMNS: Sequence[Column[CacheEntry]] = (
    Column("size", lambda entry: size(entry.size_bytes), lambda entry: str(entry.size_bytes), align_right=True),
    Column("used", lambda entry: age(entry.use_time), lambda entry: utc(entry.use_time)),
    Column("kind", lambda entry: entry.kind),
    Column("sha256", lambda entry: (entry.sha256 or "")[:12], lambda entry: entry.sha256 or ""),
    Column("name", lambda entry: entry.path.name, lambda entry: str(entry.path), shrinks=True),
)


def _document(entry: CacheEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "path": str(entry.path),
        "size_bytes": str(entry.size_bytes),
        "use_time": utc(entry.use_time),
        "sha256": entry.sha256,
    }


@cache_command.command("usage")
@with_session
def show_usage(session: Session) -> None:
    """Show what the cache has, the least recently used first, and its limit."""
    from modelreg.cache import Cache  # noqa: PLC0415 - as all of the library, not before it is used

    usage = Cache().usage()
    document = {
        "directory": str(usage.directory),
        "size_bytes": str(usage.size_bytes),
        "max_bytes": None if usage.max_bytes is None else str(usage.max_bytes),
        "entries": [_document(entry) for entry in usage.entries],
    }

    def human() -> None:
        session.output.table(usage.entries, _COLUMNS)
        limit = "without a limit" if usage.max_bytes is None else f"of at most {size(usage.max_bytes)}"
        note(f"{size(usage.size_bytes)} {limit} in {usage.directory}")

    session.output.result(document, human=human, quiet=str(usage.size_bytes))


@cache_command.command("prune")
@click.option(
    "--max-bytes",
    metavar="SIZE",
    help="What the cache may keep, for example 50GB; 0 deletes everything. Default: its limit.",
)
@with_session
def prune(session: Session, max_bytes: str | None) -> None:
    """Delete the least recently used artifacts until the cache is within a limit.

    What another process is pulling is kept.
    """
    from modelreg.cache import Cache  # noqa: PLC0415

    deleted = Cache().prune(max_bytes=max_bytes)
    freed = sum(entry.size_bytes for entry in deleted)
    session.output.result(
        {"deleted": [_document(entry) for entry in deleted], "freed_bytes": str(freed)},
        human=lambda: note(f"Deleted {len(deleted)} {'entry' if len(deleted) == 1 else 'entries'}: {size(freed)}."),
        quiet=str(freed),
    )


@cache_command.command("dir")
@with_session
def show_directory(session: Session) -> None:
    """Print the directory of the cache."""
    from modelreg.directories import cache_directory  # noqa: PLC0415

    directory = str(cache_directory())
    output = session.output
    output.result(
        {"directory": directory},
        human=lambda: output.line(printable(directory) if output.is_terminal else directory),
        quiet=directory,
    )
