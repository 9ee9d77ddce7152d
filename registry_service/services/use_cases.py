"""All that can be done, wired: what a transport is given."""

from dataclasses import dataclass

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.ports import Database
from registry_service.services.changing import DeleteModel, UpdateModel
from registry_service.services.comparing import CompareModels
from registry_service.services.lineage import GetModelManifest, ListAncestors, ListDescendants, ListLineage
from registry_service.services.policy import Policy
from registry_service.services.reading import (
    FindModels,
    GetModel,
    ListArtifactFiles,
    ListModels,
    ReadArtifact,
    ReadArtifactFile,
    VerifyArtifact,
)
from registry_service.services.registering import RegisterModel
from registry_service.services.sweeping import DiscardObject, Sweep
from registry_service.services.uploading import CancelUpload, CompleteUpload, CreateUpload, GetUpload, WriteUpload


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """One member for each."""

    register_model: RegisterModel
    get_model: GetModel
    list_models: ListModels
    find_models: FindModels
    update_model: UpdateModel
    delete_model: DeleteModel
    compare_models: CompareModels
    list_lineage: ListLineage
    list_ancestors: ListAncestors
    list_descendants: ListDescendants
    get_model_manifest: GetModelManifest
    create_upload: CreateUpload
    write_upload: WriteUpload
    get_upload: GetUpload
    complete_upload: CompleteUpload
    cancel_upload: CancelUpload
    read_artifact: ReadArtifact
    verify_artifact: VerifyArtifact
    list_artifact_files: ListArtifactFiles
    read_artifact_file: ReadArtifactFile
    sweep: Sweep

    @classmethod
    def on(cls, database: Database, store: ArtifactStore, policy: Policy) -> "UseCases":
        """Wires the use cases to a database and an artifact store."""
        discard = DiscardObject(database, store)
        return cls(
            register_model=RegisterModel(database, store, discard, policy),
            get_model=GetModel(database),
            list_models=ListModels(database),
            find_models=FindModels(database),
            update_model=UpdateModel(database, policy),
            delete_model=DeleteModel(database, discard),
            compare_models=CompareModels(database, store, policy),
            list_lineage=ListLineage(database),
            list_ancestors=ListAncestors(database),
            list_descendants=ListDescendants(database),
            get_model_manifest=GetModelManifest(database, store, policy),
            create_upload=CreateUpload(database, policy),
            write_upload=WriteUpload(database, store, discard, policy),
            get_upload=GetUpload(database),
            complete_upload=CompleteUpload(database, store, discard, policy),
            cancel_upload=CancelUpload(database, discard),
            read_artifact=ReadArtifact(database, store),
            verify_artifact=VerifyArtifact(database, store),
            list_artifact_files=ListArtifactFiles(database, store, policy),
            read_artifact_file=ReadArtifactFile(database, store, policy),
            sweep=Sweep(database, discard),
        )
