"""A model as the JSON of the Intel-compatible API."""

from registry_service.domain.models import Model


def document(model: Model) -> dict[str, object]:
    """Return exactly the keys of the Intel-compatible API, in its order. An absent value is null."""
    return {
        "id": model.id,
        "name": model.name,
        "target_device": model.target_device,
        "created_date": model.created_date,
        "last_updated_date": model.last_updated_date,
        "precision": list(model.compat_precision or model.precisions),
        "size": model.artifact.size if model.compat_size is None else model.compat_size,
        "version": model.version,
        "format": model.format,
        "origin": model.origin,
        "file_url": model.artifact.file_url,
        "project_id": model.project_id,
        "project_name": model.project_name,
        "category": model.category,
        "target_device_type": model.target_device_type,
        "score": model.score,
        "overview": model.overview,
        "optimization_capabilities": model.optimization_capabilities,
        "labels": None if model.labels is None else list(model.labels),
        "architecture": model.architecture,
    }
