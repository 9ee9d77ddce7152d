"""Compare models, and their artifacts file by file."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.comparison import (
    ArtifactComparison,
    ArtifactFiles,
    Comparison,
    FileContent,
    checked_ids,
    compare_fields,
    compare_files,
    compare_labels,
    compare_metrics,
)
from registry_service.domain.errors import ArtifactLostError, DataLossError, NotAnArchiveError
from registry_service.domain.models import Artifact
from registry_service.domain.ports import Database
from registry_service.services.archives import Archive, open_archive
from registry_service.services.policy import Policy


@dataclass(frozen=True, slots=True)
class ComparisonService:
    """Compares models with the first of them."""

    database: Database
    store: ArtifactStore
    policy: Policy

    def compare(
        self,
        ids: Sequence[str],
        check_cancelled: Callable[[], None],
        *,
        diff_only: bool = False,
        hash_files: bool = False,
    ) -> Comparison:
        """Compare models with the first of them.

        Args:
            ids: The models.
            check_cancelled: Called repeatedly while artifacts are read. Raises if the call was cancelled.
            diff_only: Whether to leave out what is equal in all models.
            hash_files: Whether to read the artifacts, and to hash each of their files.

        Raises:
            ModelNotFoundError: One of the models does not exist.
            InvalidArgumentError: There are too few, too many, or repeated ids.
        """
        checked_ids(ids)
        with self.database.transaction() as transaction:
            models = [transaction.models.get(model_id) for model_id in ids]
        fields, fields_cut = compare_fields(models, diff_only=diff_only)
        metrics, metrics_cut = compare_metrics(models, diff_only=diff_only)
        labels, labels_cut = compare_labels(models)
        artifacts = self._artifacts([model.artifact for model in models], check_cancelled, diff_only, hash_files)
        return Comparison(
            models=models,
            fields=fields,
            metrics=metrics,
            labels=None if diff_only and labels.equal else labels,
            artifacts=None if diff_only and artifacts.equal else artifacts,
            truncated=fields_cut or metrics_cut or labels_cut,
        )

    def _artifacts(
        self, artifacts: Sequence[Artifact], check_cancelled: Callable[[], None], diff_only: bool, hash_files: bool
    ) -> ArtifactComparison:
        if len({artifact.sha256 for artifact in artifacts}) == 1:
            return ArtifactComparison(problems=[""] * len(artifacts), equal=True)
        # Copies of the same bytes are read once.
        copies: dict[tuple[str, str], list[Artifact]] = {}
        for artifact in artifacts:
            copies.setdefault(_same(artifact), []).append(artifact)
        found = {key: self._files(group, check_cancelled, hash_files) for key, group in copies.items()}
        return compare_files([found[_same(artifact)] for artifact in artifacts], diff_only=diff_only)

    def _files(
        self, copies: Sequence[Artifact], check_cancelled: Callable[[], None], hash_files: bool
    ) -> ArtifactFiles:
        artifact = copies[0]
        if not artifact.is_declared_zip:
            content = FileContent(size=artifact.size, sha256=artifact.sha256)
            return ArtifactFiles(files={artifact.file_name: content})
        problem = ""
        for copy in copies:
            check_cancelled()
            try:
                with open_archive(
                    self.store,
                    copy.object_key,
                    copy.size,
                    directory_max_bytes=self.policy.zip_directory_max_bytes,
                ) as archive:
                    return self._members(archive, check_cancelled, hash_files)
            except (ArtifactLostError, NotAnArchiveError) as error:
                problem = error.message
        return ArtifactFiles(files=None, problem=problem)

    def _members(self, archive: Archive, check_cancelled: Callable[[], None], hash_files: bool) -> ArtifactFiles:
        # Of several members with one name, the last one counts, as when the ZIP is unpacked. Folders are no files.
        files = {
            member.name: FileContent(size=member.size, crc32=member.crc32)
            for member in archive.members()
            if not member.name.endswith("/")
        }
        if not hash_files:
            return ArtifactFiles(files=files)
        total, most = sum(content.size for content in files.values()), self.policy.artifact_max_bytes
        if total > most:
            # A small ZIP may claim to unpack to any size.
            return ArtifactFiles(files=files, problem=f"Its files take {total} bytes; over {most} are not hashed.")
        problem = ""
        for name, content in files.items():
            try:
                files[name] = replace(content, sha256=_sha256(archive, name, check_cancelled))
            except ArtifactLostError:
                raise
            except (DataLossError, NotAnArchiveError) as error:
                problem = problem or error.message
        return ArtifactFiles(files=files, problem=problem)


def _same(artifact: Artifact) -> tuple[str, str]:
    """Return a key that is equal for artifacts with the same files."""
    return artifact.sha256, "" if artifact.is_declared_zip else artifact.file_name


def _sha256(archive: Archive, name: str, check_cancelled: Callable[[], None]) -> str:
    check_cancelled()
    found = archive.open(name)
    if found is None:
        raise AssertionError("the member is in the directory")
    digest = hashlib.sha256()
    for piece in found[1]:
        digest.update(piece)
        check_cancelled()
    return digest.hexdigest()
