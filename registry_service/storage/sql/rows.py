"""Models and uploads as rows, and back."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping

from registry_service.domain.artifact_store import Part
from registry_service.domain.events import UNKNOWN_TIME, Event
from registry_service.domain.models import (
    MUTABLE_FIELDS,
    Artifact,
    ArtifactKind,
    ArtifactSpec,
    Dataset,
    GroupKey,
    Model,
    ModelFields,
    ModelSpec,
    Provenance,
)
from registry_service.domain.signature import Signature, Tensor
from registry_service.domain.uploads import Upload, UploadState
from registry_service.domain.vocabulary import Action

# Rows come from a typed schema with CHECK constraints, but JSON has no type.
Row = RowMapping | Mapping[str, Any]

_ARTIFACT_FIELDS = tuple(f.name for f in fields(Artifact) if f.name != "kind")
_EVENT_FIELDS = tuple(
    f.name for f in fields(Event) if f.name not in {"action", "group_key", "is_damaged", "moved_away"}
)
_EVENT_TEXTS = ("actor", "request_id", "name", "model_id", "alias", "reason", "previous_hash", "hash")
_ACTIONS = frozenset(Action) - {Action.UNKNOWN}
_MANY_DIGITS = re.compile(r"[0-9]{309}")
_SIGNS = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]')
_MAX_NESTED = 200
_INTERNAL = frozenset({"object_key", "schema"})
# Columns with another name than their field.
_COLUMNS = {"precisions": "precision", "compat_size": "documented_size"}
_OWN_FIELDS = (
    "id",
    "created_date",
    "last_updated_date",
    "create_time",
    "update_time",
    "revision",
    "creator",
    "compat_size",
)


def model_values(model: Model) -> dict[str, object]:
    """Return a model as the columns of its row."""
    return (
        field_values(model)
        | {_COLUMNS.get(name, name): getattr(model, name) for name in _OWN_FIELDS}
        | {"documented_precision": None if model.compat_precision is None else list(model.compat_precision)}
        | {name: getattr(model.artifact, name) for name in _ARTIFACT_FIELDS}
        | {"artifact_kind": model.artifact.kind.value}
        | {"schema": None if model.signature is None else _without_empty(asdict(model.signature))}
    )


def event_values(columns: Mapping[str, object]) -> dict[str, Any]:
    """Return columns of a model as JSON for an event, without internal columns."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in columns.items()
        if name not in _INTERNAL
    }


def field_values(model: ModelFields) -> dict[str, object]:
    """Return the fields that a client sets, as plain lists, dicts and scalars."""
    values: dict[str, object] = {name: getattr(model, name) for name in MUTABLE_FIELDS}
    values["precision"] = list(model.precisions)
    del values["precisions"]
    values["labels"] = None if model.labels is None else list(model.labels)
    values["metrics"] = dict(model.metrics)
    values["tags"] = dict(model.tags)
    # Leave out empty values: most models have little provenance or none.
    values["provenance"] = _without_empty(asdict(model.provenance))
    return values


def _without_empty(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value not in ("", (), {}, None)}


def model(row: Mapping[str, Any]) -> Model:
    """Return the model of a row in JSON."""
    own = {name: row[_COLUMNS.get(name, name)] for name in _OWN_FIELDS}
    own["create_time"] = datetime.fromisoformat(row["create_time"])
    own["update_time"] = datetime.fromisoformat(row["update_time"])
    return Model(
        **_fields(row),
        **own,
        compat_precision=None if row["documented_precision"] is None else tuple(row["documented_precision"]),
        artifact=Artifact(**{name: row[name] for name in _ARTIFACT_FIELDS}, kind=ArtifactKind(row["artifact_kind"])),
        artifact_verify_time=None if row["verify_time"] is None else datetime.fromisoformat(row["verify_time"]),
        signature=_signature(row.get("schema")),
        listed_signature=_signature(row.get("listed_signature")),
        model_group_id=row["model_group_id"] or "",
        aliases=tuple(row["aliases"] or ()),
    )


def _fields(values: Row) -> dict[str, Any]:
    stored = ((name, _COLUMNS.get(name, name)) for name in MUTABLE_FIELDS)
    # The spec of an upload that an earlier version created lacks newer fields, which have their defaults.
    result = {name: values[column] for name, column in stored if column in values}
    result["precisions"] = tuple(values["precision"])
    result["labels"] = None if values["labels"] is None else tuple(values["labels"])
    # JSON has 1.0 as the number 1, which becomes an int.
    result["score"] = None if values["score"] is None else float(values["score"])
    result["metrics"] = {key: float(number) for key, number in values["metrics"].items()}
    result["provenance"] = _provenance(values["provenance"])
    return result


def _provenance(values: Row) -> Provenance:
    result = dict(values)
    result["datasets"] = tuple(Dataset(**dataset) for dataset in values.get("datasets", ()))
    result["parent_model_ids"] = tuple(values.get("parent_model_ids", ()))
    return Provenance(**result)


def _signature(values: Mapping[str, Any] | None) -> Signature | None:
    if values is None:
        return None
    tensors = {
        name: tuple(_tensor(tensor) for tensor in values.get(name, ())) for name in ("inputs", "outputs", "weights")
    }
    lists = {name: tuple(values.get(name, ())) for name in ("precision", "problems")}
    return Signature(**(dict(values) | tensors | lists))


def _tensor(values: Mapping[str, Any]) -> Tensor:
    return Tensor(
        name=values["name"],
        element_type=values["element_type"],
        shape=None if values["shape"] is None else tuple(values["shape"]),
    )


def event(row: Row) -> Event:
    """Return the event of a row."""
    return Event(
        action=Action(row["action"]),
        group_key=GroupKey(name=row["name"], project_id=row["project_id"], project_name=row["project_name"]),
        **{name: row[name] for name in _EVENT_FIELDS},
    )


def stored_event(row: Row) -> Event:
    """Return the event of a row that someone may have changed, with `before` and `after` as texts of JSON.

    Values that no event has are NULL, with `is_readable` false. Such a row becomes a damaged event.
    """
    values = dict(row)
    is_damaged = not row["is_readable"]
    for name in ("before", "after"):
        try:
            values[name] = None if row[name] is None else _object(row[name])
        except (ValueError, RecursionError):
            values[name], is_damaged = None, True
    if row["action"] not in _ACTIONS:
        values["action"], is_damaged = Action.UNKNOWN, True
    if is_damaged:
        values["time"] = UNKNOWN_TIME if row["time"] is None else row["time"]
        values |= {name: "" for name in _EVENT_TEXTS if row[name] is None}
    return replace(event(values), is_damaged=is_damaged)


def _object(text: str) -> dict[str, Any]:
    """Return a JSON object (`ValueError` for other JSON, numbers beyond a double, or deep nesting)."""
    # Few objects may have such a number. Only those parse each number.
    parse_int = _double if _MANY_DIGITS.search(text) else None
    if text.count("{") + text.count("[") > _MAX_NESTED and _depth(text) > _MAX_NESTED:
        raise ValueError("nested too deep")
    found = json.loads(text, parse_int=parse_int)
    if not isinstance(found, dict):
        raise ValueError("no object")  # noqa: TRY004 - of the text
    return found


def _double(digits: str) -> int:
    if math.isinf(float(digits)):
        raise ValueError("no double")
    return int(digits)


def _depth(text: str) -> int:
    depth = deepest = 0
    for sign in _SIGNS.findall(text):
        if sign in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "}]":
            depth -= 1
    return deepest


def spec_values(spec: ModelSpec) -> dict[str, object]:
    """Return a spec as JSON."""
    return {
        "fields": field_values(spec.fields),
        "id": spec.id,
        "created_date": spec.created_date,
        # The kind is outside, because the previous version does not know it.
        "artifact": {name: value for name, value in asdict(spec.artifact).items() if name != "kind"},
        "artifact_kind": spec.artifact.kind.value,
    }


def upload(row: Row, parts: tuple[Part, ...]) -> Upload:
    """Return the upload of a row."""
    spec = row["spec"]
    return Upload(
        id=row["id"],
        spec=ModelSpec(
            fields=ModelFields(**_fields(spec["fields"])),
            id=spec["id"],
            created_date=spec["created_date"],
            artifact=ArtifactSpec(
                **spec["artifact"], kind=ArtifactKind(spec.get("artifact_kind", ArtifactKind.FILE.value))
            ),
        ),
        state=UploadState(row["state"]),
        object_key=row["object_key"],
        handle=row["handle"],
        tail_key=row["tail_key"],
        committed_size=row["committed_size"],
        epoch=row["epoch"],
        creator=row["creator"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        parts=parts,
    )
