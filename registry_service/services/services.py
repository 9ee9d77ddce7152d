"""All that can be done, wired: what a transport is given."""

from dataclasses import dataclass

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.ports import Database
from registry_service.services.aliases import (
    DeleteAlias,
    GetAlias,
    ListAliases,
    ListAliasMoves,
    RollbackAlias,
    SetAlias,
)
from registry_service.services.artifact_staging import RegisterModel
from registry_service.services.artifacts import (
    FindModels,
    GetModel,
    ListArtifactFiles,
    ListModels,
    ReadArtifact,
    ReadArtifactFile,
    VerifyArtifact,
)
from registry_service.services.audit import ListEvents, VerifyLog
from registry_service.services.authorization import ConfinedDatabase
from registry_service.services.comparison import CompareModels
from registry_service.services.event_watch import WatchEvents
from registry_service.services.garbage_collection import DiscardObject, FindLeftConstructions, Sweep
from registry_service.services.idempotency import AttemptCalls
from registry_service.services.lineage import GetLineage, GetModelManifest
from registry_service.services.model_groups import (
    DeleteModelGroup,
    GetModelGroup,
    ListModelGroups,
    UpdateModelGroup,
)
from registry_service.services.models import DeleteModel, UpdateModel
from registry_service.services.policy import Policy
from registry_service.services.references import ResolveModel
from registry_service.services.uploads import (
    CancelUpload,
    CompleteUpload,
    CreateUpload,
    GetUpload,
    ListUploads,
    SeenUploads,
    WriteUpload,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """One member for each."""

    register_model: RegisterModel
    get_model: GetModel
    list_models: ListModels
    resolve_model: ResolveModel
    find_models: FindModels
    update_model: UpdateModel
    delete_model: DeleteModel
    compare_models: CompareModels
    get_lineage: GetLineage
    get_model_manifest: GetModelManifest
    create_upload: CreateUpload
    write_upload: WriteUpload
    get_upload: GetUpload
    list_uploads: ListUploads
    complete_upload: CompleteUpload
    cancel_upload: CancelUpload
    read_artifact: ReadArtifact
    verify_artifact: VerifyArtifact
    list_artifact_files: ListArtifactFiles
    read_artifact_file: ReadArtifactFile
    list_events: ListEvents
    verify_log: VerifyLog
    watch_events: WatchEvents
    sweep: Sweep
    attempt_call: AttemptCalls
    set_alias: SetAlias
    get_alias: GetAlias
    list_aliases: ListAliases
    list_alias_moves: ListAliasMoves
    rollback_alias: RollbackAlias
    delete_alias: DeleteAlias
    get_model_group: GetModelGroup
    list_model_groups: ListModelGroups
    update_model_group: UpdateModelGroup
    delete_model_group: DeleteModelGroup

    @classmethod
    def on(cls, database: Database, store: ArtifactStore, policy: Policy) -> "UseCases":
        """Return the use cases on a database and an artifact store."""
        database = ConfinedDatabase(database)
        discard = DiscardObject(database, store)
        register_model = RegisterModel(database, store, discard, policy)
        seen = SeenUploads()
        return cls(
            register_model=register_model,
            get_model=GetModel(database),
            list_models=ListModels(database),
            resolve_model=ResolveModel(database),
            find_models=FindModels(database),
            update_model=UpdateModel(database, policy),
            delete_model=DeleteModel(database, discard),
            compare_models=CompareModels(database, store, policy),
            get_lineage=GetLineage(database),
            get_model_manifest=GetModelManifest(database, store, policy),
            create_upload=CreateUpload(database, policy),
            write_upload=WriteUpload(database, store, discard, policy, seen),
            get_upload=GetUpload(database),
            list_uploads=ListUploads(database),
            complete_upload=CompleteUpload(database, store, discard, policy, seen),
            cancel_upload=CancelUpload(database, discard, policy),
            read_artifact=ReadArtifact(database, store),
            verify_artifact=VerifyArtifact(database, store),
            list_artifact_files=ListArtifactFiles(database, store, policy),
            read_artifact_file=ReadArtifactFile(database, store, policy),
            list_events=ListEvents(database),
            verify_log=VerifyLog(database),
            watch_events=WatchEvents(database, policy),
            sweep=Sweep(database, discard, FindLeftConstructions(database, store, policy.registration_lease)),
            attempt_call=AttemptCalls(database),
            set_alias=SetAlias(database, VerifyArtifact(database, store)),
            get_alias=GetAlias(database),
            list_aliases=ListAliases(database),
            list_alias_moves=ListAliasMoves(database),
            get_model_group=GetModelGroup(database),
            list_model_groups=ListModelGroups(database),
            update_model_group=UpdateModelGroup(database),
            delete_model_group=DeleteModelGroup(database),
            rollback_alias=RollbackAlias(database),
            delete_alias=DeleteAlias(database),
        )
