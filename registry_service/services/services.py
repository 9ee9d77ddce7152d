"""The services, connected to a database and an artifact store."""

from dataclasses import dataclass

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.ports import Database
from registry_service.services.aliases import AliasService
from registry_service.services.artifact_staging import ArtifactStaging
from registry_service.services.artifacts import ArtifactService
from registry_service.services.audit import AuditService
from registry_service.services.authorization import AuthorizedDatabase
from registry_service.services.comparison import ComparisonService
from registry_service.services.garbage_collection import GarbageCollector, UnfinishedObjects
from registry_service.services.idempotency import IdempotencyService
from registry_service.services.lineage import LineageService
from registry_service.services.model_groups import ModelGroupService
from registry_service.services.models import ModelService
from registry_service.services.object_deletion import ObjectDeletion
from registry_service.services.policy import Policy
from registry_service.services.references import ReferenceService
from registry_service.services.uploads import UploadService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The services that a transport calls. Each of them allows only what the current caller may do."""

    models: ModelService
    model_groups: ModelGroupService
    aliases: AliasService
    artifacts: ArtifactService
    uploads: UploadService
    references: ReferenceService
    lineage: LineageService
    comparison: ComparisonService
    audit: AuditService
    idempotency: IdempotencyService
    garbage_collector: GarbageCollector
    policy: Policy

    @classmethod
    def on(cls, database: Database, store: ArtifactStore, policy: Policy) -> "Services":
        """Return the services on a database and an artifact store."""
        database = AuthorizedDatabase(database)
        deletion = ObjectDeletion(database, store)
        artifacts = ArtifactService(database, store, policy)
        unfinished = UnfinishedObjects(database, store, policy.registration_lease)
        return cls(
            models=ModelService(database, ArtifactStaging(database, store, deletion, policy), deletion, policy),
            model_groups=ModelGroupService(database),
            aliases=AliasService(database, artifacts),
            artifacts=artifacts,
            uploads=UploadService(database, store, deletion, policy),
            references=ReferenceService(database),
            lineage=LineageService(database, store, policy),
            comparison=ComparisonService(database, store, policy),
            audit=AuditService(database, policy),
            idempotency=IdempotencyService(database),
            garbage_collector=GarbageCollector(database, deletion, unfinished),
            policy=policy,
        )
