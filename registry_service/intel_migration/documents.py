"""Read the texts in which an Intel deployment stores the fields of a model: JSON, or literals of Python."""

import ast
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from registry_service.domain.errors import FieldViolation, InvalidArgumentError
from registry_service.domain.models import Json, ModelFields, compat_date
from registry_service.domain.validation import MAX_FILE_NAME_BYTES, is_model_id
from registry_service.intel_migration.source import IntelModel

_LITERAL_ATTEMPTS = 20
_MAX_LITERAL = 65_536
"""Maximum number of characters. Python's parser takes a hundred times the memory."""
_PLAIN_TEXTS = (
    "name",
    "version",
    "project_id",
    "project_name",
    "target_device",
    "target_device_type",
    "format",
    "origin",
    "category",
    "architecture",
)
_FILE_URL = re.compile(r"minio://[^/]+/(?P<key>(?P<id>[^/]+)/(?P<file>[^/]+))", re.DOTALL)
_DATE = "%Y-%m-%d %H:%M:%S.%f UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelDocument:
    """A model of an Intel deployment, parsed."""

    fields: ModelFields
    created_date: str
    last_updated_date: str
    create_time: datetime
    update_time: datetime
    size: int | None
    """The size that the Intel deployment shows, or None."""
    compat_precision: tuple[str, ...] | None
    file_url: str
    file_name: str
    key: str
    """Key of the object in the Intel deployment's bucket."""


def read_document(model: IntelModel) -> IntelDocument:
    """Parse the texts of a model. `checked_fields` checks the values.

    Raises:
        InvalidArgumentError: Fields cannot be parsed. The error names each of them.
    """
    return _Reading(model).document()


class _Reading:
    def __init__(self, model: IntelModel) -> None:
        self._model = model
        self._tags = model.tags
        self._violations: list[FieldViolation] = []

    def document(self) -> IntelDocument:
        model = self._model
        if not is_model_id(model.id):
            self._refuse("id", "must be 16 to 256 characters of A-Z, a-z, 0-9, _ and -.")
        if self._tags.get("id", model.id) != model.id:
            self._refuse("id", "differs from the id in the tags of the model.")
        if model.is_repeated:
            self._refuse("id", "exists more than once, or has a tag more than once.")
        values: dict[str, Any] = {name: self._tags.get(name) for name in _PLAIN_TEXTS}
        values |= {name: self._tags.get(name, "") for name in ("name", "version")}
        precision = self._precision()
        fields = ModelFields(
            **values,
            precisions=tuple(text.lower() for text in precision),
            score=self._number("score", float),
            overview=self._object("overview"),
            optimization_capabilities=self._object("optimization_capabilities"),
            labels=self._labels(),
        )
        size = self._number("size", int)
        key, file_name = self._place()
        if self._violations:
            raise InvalidArgumentError(self._violations)
        last_updated_date = self._tags.get("last_updated_date")
        return IntelDocument(
            fields=fields,
            # Without these fields, Intel's Model Registry shows the times of the row.
            created_date=self._tags.get("created_date") or compat_date(model.create_time),
            last_updated_date=last_updated_date or compat_date(model.update_time),
            create_time=model.create_time,
            update_time=max(model.create_time, _time(last_updated_date) or model.update_time),
            size=size,
            compat_precision=precision if precision != fields.precisions else None,
            file_url=self._tags["file_url"],
            file_name=file_name,
            key=key,
        )

    def _refuse(self, name: str, description: str) -> None:
        self._violations.append(FieldViolation(name, description))

    def _precision(self) -> tuple[str, ...]:
        text = self._tags.get("precision")
        if text is None:
            return ("fp32",)
        try:
            value = _literal(text)
        except ValueError:
            value = None
        if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            return tuple(dict.fromkeys(value))
        self._refuse("precision", "must be a list of strings.")
        return ("fp32",)

    def _number(self, name: str, kind: type[float] | type[int]) -> Any:
        text = self._tags.get(name)
        if text is None or text == "None":
            return None
        try:
            return kind(text)
        except ValueError:
            self._refuse(name, "must be a number.")
            return None

    def _object(self, name: str) -> Json:
        text = self._tags.get(name)
        if text is None:
            return {}
        try:
            value: Json = _plain(_literal(text))
        except ValueError:
            # A string is stored without quotes. A text that begins like an object was cut off.
            if text.lstrip()[:1] in {"{", "["}:
                self._refuse(name, "must be JSON or a literal of Python; it may be cut off.")
            return text
        return value

    def _labels(self) -> tuple[Json, ...] | None:
        text = self._tags.get("labels")
        if text is None:
            return ()
        try:
            value = _plain(_literal(text))
            # An update stored a list as the text of one label.
            if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
                value = _inner_list(value[0]) or value
        except ValueError:
            value = text
        if value is None:
            return None
        if not isinstance(value, list):
            self._refuse("labels", "must be a list.")
            return ()
        return tuple(value)

    def _place(self) -> tuple[str, str]:
        found = _FILE_URL.fullmatch(self._tags.get("file_url", ""))
        if (
            found is None
            or found["id"] != self._model.id
            or found["file"] in {".", ".."}
            or len(found["file"].encode(errors="replace")) > MAX_FILE_NAME_BYTES
        ):
            self._refuse("file_url", "must be minio://<bucket>/<id>/<file name>.")
            return "", ""
        return found["key"], found["file"]


def _inner_list(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        value = _plain(_literal(text))
    except ValueError:
        return None
    return value if isinstance(value, list) and value else None


def _literal(text: str) -> object:
    """Return the value of JSON or of a literal of Python, or raise ValueError."""
    if len(text) > _MAX_LITERAL:
        raise ValueError("too long")
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        pass
    for _ in range(_LITERAL_ATTEMPTS):
        try:
            return ast.literal_eval(text.strip())
        except SystemError:
            # CPython 3.11 counts the recursion of all threads together, so it fails if another one uses `ast` at the
            # same time (python/cpython#106905).
            continue
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            raise ValueError("not a literal") from error
    raise ValueError("not readable at the moment")


def _no_number(constant: str) -> NoReturn:
    raise ValueError(constant)


def _plain(value: object, depth: int = 1) -> Any:
    """Return a value of JSON that can be stored, or raise ValueError."""
    match value:
        case None | bool():
            return value
        case str():
            value.encode()  # half of a surrogate pair raises UnicodeEncodeError, a ValueError
            return value
        case int() | float():
            if not -1e308 < value < 1e308:  # also refuses NaN
                raise ValueError("not finite")
            return value
        case list() | tuple() if depth <= 100:
            return [_plain(item, depth + 1) for item in value]
        case dict() if depth <= 100 and all(isinstance(key, str) for key in value):
            return {_plain(key): _plain(item, depth + 1) for key, item in value.items()}
        case _:
            raise ValueError(type(value).__name__)


def _time(date: str | None) -> datetime | None:
    """Return a time as Intel's Model Registry writes it, or None for any other text."""
    try:
        return datetime.strptime(date or "", _DATE).replace(tzinfo=UTC)
    except ValueError:
        return None
