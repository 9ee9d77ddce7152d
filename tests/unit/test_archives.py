"""Reading of ZIPs that are damaged."""

from contextlib import suppress

from hypothesis import given, settings

from registry_service.domain.errors import DataLossError, NotAnArchiveError
from registry_service.services.archives import Archive, open_archive
from tests.damaged_archives import DAMAGED_ARCHIVES
from tests.unit.signatures.helpers import OneObject, read


@given(DAMAGED_ARCHIVES)
@settings(max_examples=1000)
def test_every_error_about_a_damaged_archive_says_that_it_is_damaged(data: bytes) -> None:
    read(data, "model.zip", "application/zip")
    with (
        suppress(NotAnArchiveError),
        open_archive(OneObject(data), "key", len(data), directory_max_bytes=1024) as archive,  # type: ignore[arg-type]
    ):
        archive.unsafe_name()
        for member in archive.members():
            read_member(archive, member.name)


def read_member(archive: Archive, name: str) -> None:
    received = 0
    with suppress(NotAnArchiveError, DataLossError):
        opened = archive.open(name)
        assert opened is not None
        member, pieces = opened
        for piece in pieces:
            received += len(piece)
            assert received <= member.size
        assert received == member.size
