# Generated from modelreg/_async by `make generate`. Do not edit.
"""The list of the files inside an artifact."""

from __future__ import annotations

from collections.abc import Callable

from modelregistry.v1 import artifact_service_pb2

from modelreg._folders.unpacking import MAX_ENTRIES
from modelreg._sync.connection import Connection
from modelreg._sync.listing import Listing, Page
from modelreg._wire import convert, methods
from modelreg.errors import IntegrityError
from modelreg.server import ArtifactFile


def artifact_files(connection: Connection, find_model: Callable[[], str]) -> Listing[ArtifactFile]:
    """Return the files inside an artifact, in its order, without folders.

    Args:
        connection: The connection.
        find_model: Returns the id of the model. Called at the start of each iteration.
    """
    model_id = ""

    def fetch(token: str, page_size: int) -> Page:
        nonlocal model_id
        if not token:
            model_id = find_model()
        request = artifact_service_pb2.ListArtifactFilesRequest(
            model_id=model_id, page_size=page_size, page_token=token
        )
        response = connection.unary(methods.LIST_ARTIFACT_FILES, request)
        found = [file for file in response.artifact_files if not file.path.endswith("/")]
        return found, response.next_page_token

    return Listing(fetch, convert.artifact_file, of="files")


def list_files(connection: Connection, model_id: str) -> list[ArtifactFile]:
    """Return all files inside an artifact, in its order, without folders.

    Raises:
        IntegrityError: There are more than the client unpacks.
    """

    def find_model() -> str:
        return model_id

    found = artifact_files(connection, find_model).to_list(MAX_ENTRIES + 1)
    if len(found) > MAX_ENTRIES:
        raise IntegrityError(f"The registry lists more than {MAX_ENTRIES} files in the artifact.")
    return found
