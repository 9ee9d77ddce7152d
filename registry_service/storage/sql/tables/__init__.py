"""The tables. The migrations create them, and a test compares the two."""

from registry_service.storage.sql.tables.aliases import AliasMoveRow, AliasRow
from registry_service.storage.sql.tables.audit import IS_MOVE, AuditEventRow, AuditHeadRow
from registry_service.storage.sql.tables.base import Base
from registry_service.storage.sql.tables.idempotency import IdempotencyKeyRow, IdempotencyUsageRow
from registry_service.storage.sql.tables.model_groups import ModelGroupCountRow, ModelGroupRow
from registry_service.storage.sql.tables.models import (
    UNCOUNTED_TEXTS,
    ArtifactVerificationRow,
    DeletedModelRow,
    ModelRow,
)
from registry_service.storage.sql.tables.schema import SchemaCompatibilityRow
from registry_service.storage.sql.tables.tokens import TokenRow
from registry_service.storage.sql.tables.uploads import UnreferencedObjectRow, UploadPartRow, UploadRow

__all__ = [
    "IS_MOVE",
    "UNCOUNTED_TEXTS",
    "AliasMoveRow",
    "AliasRow",
    "ArtifactVerificationRow",
    "AuditEventRow",
    "AuditHeadRow",
    "Base",
    "DeletedModelRow",
    "IdempotencyKeyRow",
    "IdempotencyUsageRow",
    "ModelGroupCountRow",
    "ModelGroupRow",
    "ModelRow",
    "SchemaCompatibilityRow",
    "TokenRow",
    "UnreferencedObjectRow",
    "UploadPartRow",
    "UploadRow",
    "alias_moves",
    "aliases",
    "artifact_verifications",
    "audit_events",
    "audit_head",
    "deleted_models",
    "idempotency_keys",
    "idempotency_usage",
    "model_group_counts",
    "model_groups",
    "models",
    "tokens",
    "unreferenced_objects",
    "upload_parts",
    "uploads",
]

models = ModelRow.__table__
model_groups = ModelGroupRow.__table__
model_group_counts = ModelGroupCountRow.__table__
deleted_models = DeletedModelRow.__table__
artifact_verifications = ArtifactVerificationRow.__table__
unreferenced_objects = UnreferencedObjectRow.__table__
uploads = UploadRow.__table__
upload_parts = UploadPartRow.__table__
audit_events = AuditEventRow.__table__
audit_head = AuditHeadRow.__table__
aliases = AliasRow.__table__
alias_moves = AliasMoveRow.__table__
tokens = TokenRow.__table__
idempotency_keys = IdempotencyKeyRow.__table__
idempotency_usage = IdempotencyUsageRow.__table__
