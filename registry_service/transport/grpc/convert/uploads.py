"""Convert uploads."""

from modelregistry.v1 import (
    model_pb2,
    upload_pb2,
)

from registry_service.domain.uploads import Upload, UploadState
from registry_service.transport.grpc.convert.models import KINDS, fields_message, spec_message
from registry_service.transport.grpc.convert.values import time_message

_STATES = {
    UploadState.ACTIVE: upload_pb2.Upload.STATE_ACTIVE,
    UploadState.COMPLETING: upload_pb2.Upload.STATE_COMPLETING,
    UploadState.COMPLETED: upload_pb2.Upload.STATE_COMPLETED,
}


def upload_message(upload: Upload) -> upload_pb2.Upload:
    """Return an upload as a message."""
    return upload_pb2.Upload(
        id=upload.id,
        spec=spec_message(upload.spec),
        state=_STATES[upload.state],
        committed_size=upload.committed_size,
        create_time=time_message(upload.create_time),
        expire_time=time_message(upload.expire_time),
        model_id=upload.spec.id,
        creator=upload.creator,
    )


def planned_model_message(upload: Upload) -> model_pb2.Model:
    """Return the model that an upload may become, as far as it is known."""
    spec = upload.spec
    message = fields_message(spec.fields)
    message.id = spec.id
    message.artifact.CopyFrom(
        model_pb2.Artifact(
            file_name=spec.artifact.file_name,
            media_type=spec.artifact.media_type,
            size_bytes=upload.committed_size,
            sha256=spec.artifact.sha256,
            kind=KINDS[spec.artifact.kind],
        )
    )
    return message
