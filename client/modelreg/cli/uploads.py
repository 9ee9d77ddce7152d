"""The command `uploads`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from modelreg.cli._frame import Group, with_session
from modelreg.cli._output import Column, note
from modelreg.cli._text import age, local, size, utc

if TYPE_CHECKING:
    from modelreg import Upload
    from modelreg.cli._session import Session


def _sent(upload: Upload) -> str:
    if not upload.size_bytes:
        return size(upload.committed_size)
    return (
        f"{size(upload.committed_size)} of {size(upload.size_bytes)} ({upload.committed_size / upload.size_bytes:.0%})"
    )


_COLUMNS: Sequence[Column[Upload]] = (
    Column("id", lambda upload: upload.id),
    Column("model", lambda upload: f"{upload.name}:{upload.version}", shrinks=True, style="cyan"),
    Column("file", lambda upload: upload.file_name, shrinks=True),
    Column("sent", _sent, lambda upload: str(upload.committed_size), align_right=True),
    Column("state", lambda upload: upload.state),
    Column("begun", lambda upload: age(upload.create_time), lambda upload: utc(upload.create_time)),
    Column("by", lambda upload: upload.creator, shrinks=True),
    Column("expires", lambda upload: local(upload.expire_time), lambda upload: utc(upload.expire_time), optional=True),
)


@click.group("uploads", cls=Group)
def uploads_command() -> None:
    """List and cancel uploads that are not completed.

    A push that was interrupted keeps its upload: the same push again continues it.
    """


@uploads_command.command("ls")
@with_session
def list_uploads(session: Session) -> None:
    """List the uploads that are not completed."""
    found = session.output.items(
        session.registry.uploads(), key="uploads", columns=_COLUMNS, quiet=lambda upload: upload.id
    )
    if not found and session.output.is_human:
        note("There are no uploads.")


@uploads_command.command("cancel")
@click.argument("upload_ids", metavar="ID...", nargs=-1, required=True)
@with_session
def cancel_uploads(session: Session, upload_ids: tuple[str, ...]) -> None:
    """Delete uploads and the bytes that were sent."""
    session.output.done(_cancelled(session, upload_ids))


def _cancelled(session: Session, upload_ids: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for upload_id in upload_ids:
        session.registry.cancel_upload(upload_id)
        yield upload_id, f"Cancelled {upload_id}."
