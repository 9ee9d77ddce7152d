"""Where a model comes from and what became of it: versions of a name, ancestors, descendants, manifests."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import ArtifactLostError, InvalidArgumentError, NotAnArchiveError
from registry_service.domain.family import (
    MAX_DEPTH,
    MAX_RELATIVES,
    Family,
    Link,
    Relative,
    Relatives,
    checked_depth,
    relatives,
)
from registry_service.domain.listing import (
    DEFAULT_ORDER,
    MAX_PAGE_BYTES,
    ListQuery,
    decode_page_token,
    encode_page_token,
    page_size,
    parse_order,
    sort_kinds,
    sort_values,
)
from registry_service.domain.models import Lineage, Model, checked_text
from registry_service.domain.ports import Database, ModelRepository
from registry_service.services.archives import ArchiveMember, open_archive
from registry_service.services.policy import Policy

_MAX_LINK_BYTES = 512 * 1024
# Of a model beside its metadata: digest, address, times.
_RELATIVE_BYTES = 1_000
_MANIFEST_FILES = 10_000
_MANIFEST_BYTES = 512 * 1024
"""Most of files, of ancestors, and of links in a manifest, each; the model itself comes on top."""
_FILE_BYTES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageVersion:
    """One version of a name."""

    model: Model
    aliases: Sequence[str] = ()
    """The aliases that point to it, sorted."""


@dataclass(frozen=True, slots=True)
class ListLineage:
    """Lists the versions of a name, newest first, a page at a time."""

    database: Database

    def __call__(self, lineage: Lineage, *, size: int, token: str) -> tuple[Sequence[LineageVersion], str]:
        """Returns the versions of a page and the token of the next, empty where this is the last.

        Raises:
            InvalidArgumentError: Name, project, size or token are wrong.
        """
        if not lineage.name:
            raise InvalidArgumentError.of("name", "must not be empty.")
        for name in ("name", "project_id", "project_name"):
            checked_text(getattr(lineage, name) or "", name)
        order = parse_order(DEFAULT_ORDER)
        query = ("lineage", repr(lineage))
        after = decode_page_token(token, query, sort_kinds(order))
        wanted = ListQuery(filter=None, lineage=lineage, order=order, after=after, limit=page_size(size))
        with self.database.transaction() as transaction:
            page = transaction.models.list(wanted)
            aliases = transaction.aliases.of_models([model.id for model in page.models])
            versions = [LineageVersion(model=model, aliases=tuple(aliases.get(model.id, ()))) for model in page.models]
        return versions, encode_page_token(query, sort_values(page.models[-1], order)) if page.more else ""


@dataclass(frozen=True, slots=True)
class ListAncestors:
    """Lists the models that a model was made from, directly or not."""

    database: Database

    def __call__(self, model_id: str, *, max_depth: int = 0) -> Family:
        """Returns the ancestors at most `max_depth` steps away (0: as many as may be).

        Raises:
            ModelNotFoundError: There is no such model.
            InvalidArgumentError: `max_depth` is negative.
        """
        depth = checked_depth(max_depth)
        with self.database.transaction() as transaction:
            transaction.models.get(model_id)
            return _ancestors(transaction.models, model_id, depth, MAX_PAGE_BYTES, _MAX_LINK_BYTES)


@dataclass(frozen=True, slots=True)
class ListDescendants:
    """Lists the models that were made from a model, directly or not."""

    database: Database

    def __call__(self, model_id: str, *, max_depth: int = 0) -> Family:
        """Returns the descendants at most `max_depth` steps away (0: as many as may be).

        Raises:
            ModelNotFoundError: There is no such model, and none that was made from it.
            InvalidArgumentError: `max_depth` is negative.
        """
        depth = checked_depth(max_depth)
        with self.database.transaction() as transaction:
            models = transaction.models
            # Of the children, so many can be known already.
            limit = 2 * MAX_RELATIVES + 1
            found = relatives(model_id, depth, lambda ids: models.children(ids, limit), upwards=False)
            if not found.depths:
                models.get(model_id)
            return _family(models, found, MAX_PAGE_BYTES, _MAX_LINK_BYTES, model_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known of how a model came to be."""

    make_time: datetime
    """Aware, UTC."""
    model: Model
    files: Sequence[ArchiveMember]
    """Members of a ZIP artifact, by name; the first ones of very many."""
    file_count: int
    """Of all members."""
    artifact_problem: str
    """Why the members are not known, for a person; empty where all is well."""
    ancestors: Family

    @property
    def unknown_ids(self) -> Sequence[str]:
        """Ids of ancestors that the registry does not have."""
        return [relative.id for relative in self.ancestors.relatives if relative.model is None]


@dataclass(frozen=True, slots=True)
class GetModelManifest:
    """Puts together what it takes to make a model again."""

    database: Database
    store: ArtifactStore
    policy: Policy

    def __call__(self, model_id: str) -> Manifest:
        """Returns the manifest (`ModelNotFoundError`)."""
        with self.database.transaction() as transaction:
            model = transaction.models.get(model_id)
            ancestors = _ancestors(transaction.models, model_id, MAX_DEPTH, _MANIFEST_BYTES, _MANIFEST_BYTES)
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


def _ancestors(models: ModelRepository, model_id: str, depth: int, max_bytes: int, max_link_bytes: int) -> Family:
    found = relatives(model_id, depth, models.parents, upwards=True)
    return _family(models, found, max_bytes, max_link_bytes, model_id)


def _family(models: ModelRepository, found: Relatives, max_bytes: int, max_link_bytes: int, model_id: str) -> Family:
    """Fetches the models, as many as fit."""
    ids = list(found.depths)
    sizes = models.metadata_sizes(ids)
    kept = ids[: max(_fitting((sizes.get(i, 0) + _RELATIVE_BYTES for i in ids), max_bytes), 1)]
    known: Mapping[str, Model] = models.find(kept)
    shown = {model_id, *kept}
    links: Sequence[Link] = [link for link in found.links if link.child in shown and link.parent in shown]
    few = links[: _fitting((len(link.child) + len(link.parent) + 8 for link in links), max_link_bytes)]
    return Family(
        relatives=[Relative(id=i, depth=found.depths[i], model=known.get(i)) for i in kept],
        links=few,
        truncated=found.truncated or len(kept) < len(ids) or len(few) < len(links),
    )


def _fitting(sizes: Iterable[int], most: int) -> int:
    """Counts how many of these, from the first on, take no more than `most` together."""
    total = 0

    def fits(size: int) -> bool:
        nonlocal total
        total += size
        return total <= most

    return sum(1 for _ in takewhile(fits, sizes))
