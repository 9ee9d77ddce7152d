"""Convert lineage and manifests."""

from collections.abc import Iterator, Mapping

from modelregistry.v1 import (
    lineage_pb2,
    model_service_pb2,
)

from registry_service.domain.errors import InvalidArgumentError
from registry_service.domain.lineage import Direction, Lineage
from registry_service.services.lineage import Manifest
from registry_service.transport.grpc.convert.artifacts import file_message
from registry_service.transport.grpc.convert.models import model_message
from registry_service.transport.grpc.convert.values import time_message

_DIRECTIONS: Mapping[int, Direction] = {
    model_service_pb2.GetLineageRequest.DIRECTION_ANCESTORS: Direction.ANCESTORS,
    model_service_pb2.GetLineageRequest.DIRECTION_DESCENDANTS: Direction.DESCENDANTS,
}


def direction_of(direction: int) -> Direction:
    """Return the direction of a lineage.

    Raises:
        InvalidArgumentError: It is unspecified or unknown.
    """
    if direction not in _DIRECTIONS:
        raise InvalidArgumentError.of("direction", "must be DIRECTION_ANCESTORS or DIRECTION_DESCENDANTS.")
    return _DIRECTIONS[direction]


def nodes_messages(lineage: Lineage) -> Iterator[lineage_pb2.LineageNode]:
    """Yield the models of a lineage as messages."""
    for node in lineage.nodes:
        model = None if node.model is None else model_message(node.model)
        yield lineage_pb2.LineageNode(model_id=node.id, depth=node.depth, model=model)


def edges_messages(lineage: Lineage) -> Iterator[lineage_pb2.LineageEdge]:
    """Yield the links of a lineage as messages."""
    return (lineage_pb2.LineageEdge(child_model_id=edge.child, parent_model_id=edge.parent) for edge in lineage.edges)


def manifest_message(manifest: Manifest) -> lineage_pb2.ModelManifest:
    """Return a manifest as a message."""
    return lineage_pb2.ModelManifest(
        api_version=lineage_pb2.DESCRIPTOR.package,
        make_time=time_message(manifest.make_time),
        model=model_message(manifest.model),
        files=map(file_message, manifest.files),
        file_count=manifest.file_count,
        artifact_problem=manifest.artifact_problem,
        ancestors=nodes_messages(manifest.ancestors),
        edges=edges_messages(manifest.ancestors),
        unknown_model_ids=manifest.unknown_ids,
        ancestors_truncated=manifest.ancestors.truncated,
    )
