"""Finding, changing and deleting models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask
from modelregistry.v1 import lineage_pb2, model_pb2, model_service_pb2

from modelreg import _arguments
from modelreg._async.connection import Connection, new_idempotency_key
from modelreg._async.groups import ModelGroupCalls
from modelreg._async.listing import MAX_PAGE_SIZE, Listing, Page, listed
from modelreg._wire import convert, methods
from modelreg._wire.convert_comparisons import comparison_of
from modelreg._wire.values import document, timestamp
from modelreg.comparisons import Comparison
from modelreg.errors import NotFound
from modelreg.lineage import Lineage
from modelreg.metadata import NewMetadata, fill
from modelreg.models import Model
from modelreg.provenance import Provenance

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ModelCalls(ModelGroupCalls):
    """The calls about models."""

    _connection: Connection

    async def model(self, reference: str, *, precision: str | Sequence[str] = (), at: datetime | None = None) -> Model:
        """Return the model that a reference names.

        Args:
            reference: `name`, `name:version`, `name@alias`, each also after `project/`, or the id of a model. Without
                version and alias, the latest version.
            precision: Only a model with exactly these precisions, for example `"int8"`. Default: any.
            at: The alias as it was then; an aware time. Default: now.

        Raises:
            NotFound: There is no such model.
            Ambiguous: Several models fit; `candidates` names them. Name a project or `precision`.
            InvalidArgument: The text is not a reference, or the time has no time zone.

        >>> (await reg.model("vad")).version
        '6.2.3'
        >>> (await reg.model("vad@production")).version
        '6.2.2'
        """
        request = model_service_pb2.ResolveModelRequest(
            reference=_arguments.text(reference, "reference", advice="Write name:version or name@alias."),
            precisions=_arguments.texts(precision, "precision"),
            at_time=None if at is None else timestamp(at, "at"),
        )
        with _arguments.renamed("at_time", "at"):
            return convert.model((await self._connection.unary(methods.RESOLVE_MODEL, request)).model)

    def models(self, filter: str = "", *, order_by: str = "", page_size: int = MAX_PAGE_SIZE) -> Listing[Model]:  # noqa: A002
        """Return the models that a filter matches, as a list that fetches its pages itself.

        Args:
            filter: A filter (AIP-160), for example `format = onnx AND metrics.f1 > 0.9`. Default: all models.
            order_by: Fields to order by, for example `metrics.f1 desc, create_time`. Default: the newest first.
            page_size: The number of models that one call returns at most. At most 1,000.

        Raises:
            InvalidArgument: At the first iteration: the filter or the order is wrong, at `position`.

        >>> [model.version async for model in reg.models("name = vad AND metrics.f1 > 0.9")]
        ['6.2.3']
        >>> [model.version async for model in reg.models("tags.team = audio", order_by="metrics.f1")]
        ['6.2.2', '6.2.3']
        """
        filter_text, order = _arguments.text(filter, "filter"), _arguments.text(order_by, "order_by")

        async def fetch(token: str, size: int) -> Page:
            request = model_service_pb2.ListModelsRequest(
                filter=filter_text, order_by=order, page_size=size, page_token=token
            )
            response = await self._connection.unary(methods.LIST_MODELS, request)
            return response.models, response.next_page_token

        of = listed("models", filter=filter_text, order_by=order)
        return Listing(fetch, convert.model, of=of, page_size=page_size)

    def versions(self, name: str) -> Listing[Model]:
        """Return all versions of a model group, the latest first.

        Args:
            name: `name` or `project/name`.

        Raises:
            NotFound: At the first iteration: there is no such model group.
            Ambiguous: At the first iteration: several projects have one of the name.

        >>> [model.version async for model in reg.versions("vad")]
        ['6.2.3', '6.2.2']
        """
        group_id = ""

        async def fetch(token: str, size: int) -> Page:
            nonlocal group_id
            if not token:
                group_id = (await self.group(name)).id
            request = model_service_pb2.ListModelsRequest(
                filter=f'model_group_id = "{group_id}"', order_by="version desc", page_size=size, page_token=token
            )
            response = await self._connection.unary(methods.LIST_MODELS, request)
            return response.models, response.next_page_token

        return Listing(fetch, convert.model, of=listed("versions", name=_arguments.text(name, "name")))

    async def update(
        self, model: Model | str, *, provenance: Provenance | None = None, **metadata: Unpack[NewMetadata]
    ) -> Model:
        """Change the metadata of a model, all of it or nothing, and return the model as it is then.

        Args:
            model: The model. Its `etag` makes the call fail if the model was changed since it was read. A reference
                changes whatever state the model is in.
            provenance: Replaces the provenance. Its parents may be models and references.
            metadata: The fields to change, for example `score=0.9`: those that `push` takes, with `name` and `version`.
                None removes a field. `metrics` and `tags` are merged by key, and None removes a key.

        Raises:
            Conflict: The model was changed since it was read (`ETAG_MISMATCH`).
            NotFound: There is no such model.
            AlreadyExists: Another model has the new project, name, version and precisions.
            PreconditionFailed: Aliases point to the model, so it cannot get another name or project.
            InvalidArgument: A value is invalid; `violations` names it.

        >>> model = await reg.update("vad:6.2.3", tags={"stage": "candidate", "team": None}, description="Smaller.")
        >>> model.tags, model.revision
        ({'stage': 'candidate'}, 2)
        """
        message = model_pb2.Model()
        paths = fill(message, metadata, others=("provenance",))
        if provenance is not None:
            paths.append("provenance")
            message.provenance.CopyFrom(await self._provenance_message(provenance))
        before = model if isinstance(model, Model) else await self.model(model)
        message.id, message.etag = before.id, before.etag if isinstance(model, Model) else ""
        if not paths:
            return before
        request = model_service_pb2.UpdateModelRequest(
            model=message, update_mask=FieldMask(paths=paths), idempotency_key=new_idempotency_key()
        )
        return convert.model(await self._connection.unary(methods.UPDATE_MODEL, request))

    async def delete(self, model: Model | str, *, force: bool = False, missing_ok: bool = False) -> None:
        """Delete a model and its artifact.

        Args:
            model: The model, which must not have been changed since it was read, or a reference.
            force: Whether to delete the aliases that point to the model, too.
            missing_ok: Whether a model that does not exist counts as deleted.

        Raises:
            NotFound: There is no such model, and `missing_ok` is not set.
            PreconditionFailed: Aliases point to the model, and `force` is not set.
            Conflict: The model was changed since it was read.

        >>> await reg.delete("vad:6.2.3")
        >>> await reg.delete("vad:6.2.3", missing_ok=True)
        """
        try:
            found = model if isinstance(model, Model) else await self.model(model)
        except NotFound:
            if missing_ok:
                return
            raise
        request = model_service_pb2.DeleteModelRequest(
            model_id=found.id,
            etag=found.etag if isinstance(model, Model) else "",
            allow_missing=missing_ok,
            force=force,
            idempotency_key=new_idempotency_key(),
        )
        await self._connection.unary(methods.DELETE_MODEL, request)

    async def compare(self, *models: Model | str, diff_only: bool = True, hash_files: bool = False) -> Comparison:
        """Return how models differ from the first of them.

        Args:
            models: 2 to 10 models or references.
            diff_only: Whether to leave out what is equal in all models.
            hash_files: Whether to compare the SHA-256 of the files, for which the registry reads the artifacts.

        >>> comparison = await reg.compare("vad:6.2.2", "vad:6.2.3")
        >>> [(metric.name, round(metric.deltas[1], 2)) for metric in comparison.metrics]
        [('f1', 0.03)]
        """
        ids = [await self._model_id(model) for model in models]
        request = model_service_pb2.CompareModelsRequest(model_ids=ids, diff_only=diff_only, hash_files=hash_files)
        with _arguments.renamed("model_ids", "models"):
            return comparison_of(await self._connection.unary(methods.COMPARE_MODELS, request))

    async def lineage(self, model: Model | str, *, descendants: bool = False, max_depth: int = 0) -> Lineage:
        """Return the ancestors of a model: what it was made from, and what that was made from.

        Args:
            model: The model or a reference.
            descendants: Whether to return the models that were made from it instead.
            max_depth: The maximum number of steps. Default and maximum: 100.

        >>> child = await reg.update("vad:6.2.3", provenance=modelreg.Provenance(parents=["vad:6.2.2"]))
        >>> lineage = await reg.lineage(child)
        >>> [(node.depth, node.model.reference) for node in lineage.nodes]
        [(1, 'vad:6.2.2')]
        """
        directions = model_service_pb2.GetLineageRequest
        request = directions(
            model_id=await self._model_id(model),
            direction=directions.DIRECTION_DESCENDANTS if descendants else directions.DIRECTION_ANCESTORS,
            max_depth=_arguments.whole_number(max_depth, "max_depth"),
            page_size=MAX_PAGE_SIZE,
        )
        nodes: list[lineage_pb2.LineageNode] = []
        edges: list[lineage_pb2.LineageEdge] = []
        while True:
            response = await self._connection.unary(methods.GET_LINEAGE, request)
            nodes += response.nodes
            edges += response.edges
            request.page_token = response.next_page_token
            if not request.page_token:
                return Lineage(
                    nodes=tuple(convert.lineage_node(node) for node in nodes),
                    edges=tuple(convert.lineage_edge(edge) for edge in edges),
                    truncated=response.truncated,
                )

    async def manifest(self, model: Model | str) -> Mapping[str, Any]:
        """Return everything that is known of how a model came to be, as JSON data that needs no registry.

        Args:
            model: The model or a reference.

        >>> manifest = await reg.manifest("vad:6.2.3")
        >>> manifest["model"]["version"]
        '6.2.3'
        """
        request = model_service_pb2.GetModelManifestRequest(model_id=await self._model_id(model))
        response = await self._connection.unary(methods.GET_MODEL_MANIFEST, request)
        return document(response)

    async def _model_id(self, model: Model | str) -> str:
        """Return the id of a model or of what a reference names."""
        return model.id if isinstance(model, Model) else (await self.model(model)).id

    async def _provenance_message(self, provenance: Provenance) -> model_pb2.Provenance:
        """Return a provenance as a message, with the ids of the parents that its references name."""
        message = convert.provenance_message(provenance)
        parents = [await self._model_id(parent) for parent in message.parent_model_ids]
        message.parent_model_ids[:] = parents
        return message
