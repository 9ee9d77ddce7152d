"""Comments on columns, in the terms of the API.

Revision: 0019.
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_COMMENTS = {
    "aliases.model_id": "The model that the alias points to; null if the alias is deleted.",
    "aliases.revision": "Revision of the newest move; 0 before the first.",
    "alias_moves.model_id": "The target, which may have been deleted since; null if the move deleted the alias.",
    "alias_moves.version": "The target's version at the time of the move.",
    "alias_moves.sha256": "The target's SHA-256 at the time of the move.",
    "alias_moves.previous": "Revision of the move that a rollback returns to.",
    "audit_events.model_group_id": "Null for events of tokens, and for events from before model groups existed.",
    "audit_events.json_bytes": "Size of the event as JSON, which limits a page.",
    "idempotency_keys.attempt": "The call that holds the key: it runs, or has responded.",
    "idempotency_keys.lease_time": "When a call that has not responded is presumed dead.",
    "idempotency_keys.answer": "The response; null if it was too large, and the resource is read again.",
    "idempotency_usage.window_end_time": "When the count starts again.",
    "idempotency_usage.key_count": "New keys in the window, without those of failed calls.",
    "model_groups.metric_goals": "Maximize or minimize, by metric.",
    "model_group_counts.version_count": "Number of models. A group without models has no row.",
    "models.created_date": "Shown by the Intel-compatible API. Any text.",
    "models.last_updated_date": "Shown by the Intel-compatible API.",
    "models.size": "Size of the artifact in bytes.",
    "models.sha256": "SHA-256 of the artifact in hexadecimal.",
    "models.file_url": "URL of the artifact that the Intel-compatible API shows.",
    "models.object_key": "Key of the artifact in the artifact store.",
    "models.artifact_kind": "Whether a client sent a file or packed a folder.",
    "models.metadata_bytes": "Size of the metadata, which limits a page.",
    "models.documented_size": "Size that the Intel-compatible API shows, if a client of it changed the size.",
    "models.documented_precision": "Precisions that the Intel-compatible API shows, if Geti spells them differently.",
    "models.schema": "Signature that was read from the artifact.",
    "deleted_models.project_id": "The model's project when it was deleted; null without a project.",
    "artifact_verifications.object_key": "Key of the artifact that was verified.",
    "artifact_verifications.time": "When the reading of an intact artifact began, or when damage was found.",
    "tokens.digest": "SHA-256 of the secret. The secret itself is not stored.",
    "tokens.project_id": "Project of the role; null for all projects.",
    "tokens.last_use_time": "Accurate to about ten minutes.",
    "uploads.committed_size": "Committed bytes.",
    "uploads.epoch": "Number of writers so far. Only the newest may commit.",
    "uploads.creator": "The actor that created the upload.",
    'upload_parts."offset"': "Offset in the artifact, in bytes.",
    "upload_parts.size": "Size in bytes.",
    "upload_parts.receipt": "Receipt of the artifact store for the part.",
}


def upgrade() -> None:
    """Replace the comments, which blocks neither readers nor writers."""
    for column, comment in _COMMENTS.items():
        quoted = comment.replace("'", "''")
        op.execute(f"COMMENT ON COLUMN {column} IS '{quoted}'")
