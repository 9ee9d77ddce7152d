"""The list of the files inside an artifact."""

from __future__ import annotations

from modelregistry.v1 import artifact_service_pb2

from modelreg import _messages, _methods
from modelreg._async.connection import Connection
from modelreg._async.listing import Listing, Page
from modelreg.server import ArtifactFile


def artifact_files(connection: Connection, model_id: str) -> Listing[ArtifactFile]:
    """Return the files inside an artifact, in its order, without folders."""

    async def fetch(token: str, page_size: int) -> Page:
        request = artifact_service_pb2.ListArtifactFilesRequest(
            model_id=model_id, page_size=page_size, page_token=token
        )
        response = await connection.unary(_methods.LIST_ARTIFACT_FILES, request)
        found = [file for file in response.artifact_files if not file.path.endswith("/")]
        return found, response.next_page_token

    return Listing(fetch, _messages.artifact_file)


async def list_files(connection: Connection, model_id: str) -> list[ArtifactFile]:
    """Return all files inside an artifact, in its order, without folders."""
    return await artifact_files(connection, model_id).to_list()
