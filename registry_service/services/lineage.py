"""Read the lineage of models, and their manifests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import ArtifactLostError, NotAnArchiveError
from registry_service.domain.lineage import (
    MAX_LINEAGE_NODES,
    Direction,
    Lineage,
    LineageEdge,
    LineageNode,
    LineageWalk,
    checked_depth,
    walk,
)
from registry_service.domain.listing import (
    MAX_PAGE_BYTES,
    SortValue,
    decode_page_token,
    encode_page_token,
    page_size,
)
from registry_service.domain.models import Model
from registry_service.domain.ports import Database, ModelRepository
from registry_service.services.archives import ArchiveMember, open_archive
from registry_service.services.policy import Policy

_MANIFEST_ANCESTORS = 1_000
_RELATIVE_BYTES = 1_000
"""Size of a model in a response without its metadata: digest, address, times."""
_MANIFEST_FILES = 10_000
_MANIFEST_BYTES = 512 * 1024
"""Maximum for files, for ancestors and for edges in a manifest, each. The model itself adds to that."""
_FILE_BYTES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known about how a model was made."""

    make_time: datetime
    """When the manifest was made. Aware, in UTC."""
    model: Model
    files: Sequence[ArchiveMember]
    """Members of a ZIP artifact, sorted by name; only the first ones if there are very many."""
    file_count: int
    """Number of all members."""
    artifact_problem: str
    """Why the members are unknown, in English; empty if they are known."""
    ancestors: Lineage

    @property
    def unknown_ids(self) -> Sequence[str]:
        """Ids of ancestors that the registry does not have."""
        return [node.id for node in self.ancestors.nodes if node.model is None]


@dataclass(frozen=True, slots=True)
class LineageService:
    """The lineage of models: their ancestors and descendants, and what they were made from."""

    database: Database
    store: ArtifactStore
    policy: Policy

    def get(
        self, model_id: str, direction: Direction, *, max_depth: int = 0, size: int = 0, token: str = ""
    ) -> tuple[Lineage, str]:
        """Return a page of ancestors or descendants, and the token of the next page, empty for the last page.

        Args:
            model_id: The model whose lineage this is. For descendants, the registry need not have it.
            direction: Ancestors or descendants.
            max_depth: Maximum number of steps; 0: MAX_DEPTH.
            size: Maximum number of models on the page; 0: the default.
            token: Token of this page; empty for the first page.

        Raises:
            InvalidArgumentError: `max_depth`, `size` or `token` is wrong.
            ModelNotFoundError: There is no such model, and no descendant of it.
        """
        depth = checked_depth(max_depth)
        limit = page_size(size)
        query = ("lineage", model_id, direction.value, str(depth))
        after = decode_page_token(token, query, (int, str))
        with self.database.transaction() as transaction:
            models = transaction.models
            found = _walk(models, model_id, direction, depth)
            if direction is Direction.ANCESTORS or not found.depths:
                models.get(model_id)
            page = _page(models, model_id, found, after, limit)
        if not page.more:
            return page, ""
        last = page.nodes[-1]
        return page, encode_page_token(query, (last.depth, last.id))

    def get_manifest(self, model_id: str) -> Manifest:
        """Return the manifest of a model, or raise ModelNotFoundError."""
        with self.database.transaction() as transaction:
            model = transaction.models.get(model_id)
            ancestors = _ancestors(transaction.models, model_id)
            now = transaction.now
        members: Sequence[ArchiveMember] = ()
        problem = ""
        if model.artifact.is_declared_zip:
            try:
                with open_archive(
                    self.store,
                    model.artifact.object_key,
                    model.artifact.size,
                    directory_max_bytes=self.policy.zip_directory_max_bytes,
                ) as archive:
                    members = sorted(archive.members(), key=lambda member: member.name)
            except (ArtifactLostError, NotAnArchiveError) as error:
                problem = error.message
        sizes = (len(member.name.encode(errors="replace")) + _FILE_BYTES for member in members)
        return Manifest(
            make_time=now,
            model=model,
            files=members[: min(_fitting(sizes, _MANIFEST_BYTES), _MANIFEST_FILES)],
            file_count=len(members),
            artifact_problem=problem,
            ancestors=ancestors,
        )


def _walk(models: ModelRepository, model_id: str, direction: Direction, max_depth: int) -> LineageWalk:
    if direction is Direction.ANCESTORS:
        return walk(model_id, direction, models.parents, max_depth=max_depth)
    # So many of the children can be known already.
    most = 2 * MAX_LINEAGE_NODES + 1
    return walk(model_id, direction, lambda ids: models.children(ids, most), max_depth=max_depth)


def _page(
    models: ModelRepository, model_id: str, found: LineageWalk, after: tuple[SortValue, ...] | None, limit: int
) -> Lineage:
    """Fetch the models of one page."""
    ids = list(found.depths)
    # Put each edge on the page of its farther end, so that both ends are known there.
    rank = {model_id: -1} | {i: number for number, i in enumerate(ids)}
    edges: dict[str, list[LineageEdge]] = {}
    for edge in found.edges:
        edges.setdefault(max(edge.child, edge.parent, key=rank.__getitem__), []).append(edge)
    start = 0 if after is None else sum((found.depths[i], i) <= after for i in ids)
    candidates = ids[start : start + limit]
    stored = models.metadata_sizes(candidates)
    sizes = (stored.get(i, 0) + _RELATIVE_BYTES + sum(map(_link_bytes, edges.get(i, ()))) for i in candidates)
    kept = candidates[: max(_fitting(sizes, MAX_PAGE_BYTES), 1)]
    known = models.find(kept)
    return Lineage(
        nodes=[LineageNode(id=i, depth=found.depths[i], model=known.get(i)) for i in kept],
        edges=sorted(edge for i in kept for edge in edges.get(i, ())),
        truncated=found.truncated,
        more=start + len(kept) < len(ids),
    )


def _ancestors(models: ModelRepository, model_id: str) -> Lineage:
    """Fetch the ancestors of a manifest, as many as fit."""
    found = walk(model_id, Direction.ANCESTORS, models.parents, limit=_MANIFEST_ANCESTORS)
    ids = list(found.depths)
    sizes = models.metadata_sizes(ids)
    kept = ids[: max(_fitting((sizes.get(i, 0) + _RELATIVE_BYTES for i in ids), _MANIFEST_BYTES), 1)]
    known: Mapping[str, Model] = models.find(kept)
    shown = {model_id, *kept}
    edges: Sequence[LineageEdge] = [edge for edge in found.edges if edge.child in shown and edge.parent in shown]
    few = edges[: _fitting(map(_link_bytes, edges), _MANIFEST_BYTES)]
    return Lineage(
        nodes=[LineageNode(id=i, depth=found.depths[i], model=known.get(i)) for i in kept],
        edges=few,
        truncated=found.truncated or len(kept) < len(ids) or len(few) < len(edges),
    )


def _link_bytes(edge: LineageEdge) -> int:
    return len(edge.child) + len(edge.parent) + 8


def _fitting(sizes: Iterable[int], most: int) -> int:
    """Return how many of the first sizes add up to at most `most`."""
    total = 0

    def fits(size: int) -> bool:
        nonlocal total
        total += size
        return total <= most

    return sum(1 for _ in takewhile(fits, sizes))
