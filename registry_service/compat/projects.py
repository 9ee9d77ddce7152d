"""Projects of Geti in the Intel-compatible API: their JSON, and the requests and responses of imports."""

import json
from collections.abc import Iterator, Sequence

from registry_service.compat import answers
from registry_service.compat.answers import Answer, RestError
from registry_service.compat.errors import answer_to, text_of
from registry_service.domain.errors import GetiRefusedError, RegistryError
from registry_service.geti.imports import ImportProgress
from registry_service.geti.port import MAX_IMPORTS, ModelKey, Project

_NOTE = "Note: Only OpenVINO optimized active models are supported at this time.\n"
_KEYS = ("id", "group_id")


def project_document(project: Project) -> dict[str, object]:
    """Return exactly the keys of the Intel-compatible API."""
    return {
        "id": project.id,
        "name": project.name,
        "creation_time": project.creation_time,
        "model_groups": [
            {
                "id": group.id,
                "name": group.name,
                "model_versions": [
                    {
                        "id": version.id,
                        "name": version.name,
                        "version": version.number,
                        "openvino_models": [{"id": model.id, "name": model.name} for model in version.openvino_models],
                    }
                    for version in group.versions
                ],
            }
            for group in project.model_groups
        ],
    }


def wanted_models(content_type: str, data: bytes) -> Sequence[ModelKey]:
    """Return the models that the body of an import names.

    Raises:
        RestError: 422, the body is something else.
    """
    body = _body(content_type, data)
    if not isinstance(body, dict):
        raise _wrong("model_attributes_type", [], "Input should be a valid dictionary or object to extract fields from")
    if "models" not in body:
        raise _wrong("missing", ["models"], "Field required")
    models = body["models"]
    if not isinstance(models, list):
        raise _wrong("list_type", ["models"], "Input should be a valid list")
    items = [item for i, model in enumerate(models) for item in _errors(i, model)]
    if items:
        raise RestError(answers.details(items))
    for kind, is_wrong in (("too_short", not models), ("too_long", len(models) > MAX_IMPORTS)):
        if is_wrong:
            raise _wrong(kind, ["models"], f"List should have 1 to {MAX_IMPORTS} items")
    return [ModelKey(id=model["id"], group_id=model["group_id"]) for model in models]


def _body(content_type: str, data: bytes) -> object:
    if not data:
        raise _wrong("missing", [], "Field required")
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type and media_type != "application/json" and not media_type.endswith("+json"):
        return None  # not JSON, so there are no fields
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise RestError(answers.json_invalid(error.pos, error.msg)) from error
    except (ValueError, RecursionError) as error:
        raise RestError(answers.json_invalid(0, "Not JSON")) from error


def _errors(number: int, model: object) -> Iterator[dict[str, object]]:
    if not isinstance(model, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        yield _item("model_attributes_type", ["models", number], message)
        return
    for key in _KEYS:
        if key not in model:
            yield _item("missing", ["models", number, key], "Field required")
        elif not isinstance(model[key], str):
            yield _item("string_type", ["models", number, key], "Input should be a valid string")


def _item(kind: str, location: Sequence[str | int], message: str) -> dict[str, object]:
    return {"type": kind, "loc": ["body", *location], "msg": message, "input": None}


def _wrong(kind: str, location: Sequence[str | int], message: str) -> RestError:
    return RestError(answers.details([_item(kind, location, message)]))


def import_answer(results: Sequence[ImportProgress]) -> Answer:
    """Return the response to an import: 201 if all models were registered, 207 if some were.

    Where none is: 403 if Geti refuses them all; for a single one what fits its
    error; and otherwise 502.
    """
    registered = [result.model_id for result in results if result.error is None]
    failed = [(result.model_id, result.error) for result in results if result.error is not None]
    if not failed:
        return answers.text(201, f"{_listed(registered)} registered.\n{_NOTE}")
    if registered:
        return answers.text(207, f"{_listed(registered)} registered.\n{_reasons(failed)}{_NOTE}")
    if all(isinstance(error, GetiRefusedError) for _, error in failed):
        ids = [model_id for model_id, _ in failed]
        return answers.text(403, f"{_listed(ids)} can not be registered.\n{_NOTE}")
    if len(failed) == 1:
        return answer_to(failed[0][1])
    return answers.text(502, f"No model(s) registered.\n{_reasons(failed)}")


def _listed(ids: Sequence[str]) -> str:
    return f"Model(s): {', '.join(ids)}"


def _reasons(failed: Sequence[tuple[str, RegistryError]]) -> str:
    return "".join(f"Model {model_id} can not be registered: {text_of(error)}\n" for model_id, error in failed)
