"""The forms that register or change a model, and the validation of their fields."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PureWindowsPath
from urllib.parse import parse_qsl

from registry_service.compat import answers
from registry_service.compat.answers import RestError
from registry_service.compat.multipart import MultipartReader, PartHeader
from registry_service.compat.values import FieldError, integer, json_object, labels, number, precision
from registry_service.domain.models import ZIP_MEDIA_TYPES, ArtifactSpec, ModelFields, ModelSpec
from registry_service.domain.validation import MAX_SIZE, is_model_id

MEDIA_TYPE = "application/zip"
"""Media type of every artifact of this API, whatever its content."""
MAX_TEXT_BYTES = 2 * 1024 * 1024
"""Maximum size of one text. Its value may take METADATA_MAX_BYTES, and JSON escapes take up to six times as much."""
_MAX_FORM_BYTES = 8 * 1024 * 1024

_REQUIRED = ("name", "version")
_PLAIN_TEXTS = (
    "target_device",
    "format",
    "origin",
    "project_id",
    "project_name",
    "category",
    "target_device_type",
    "architecture",
)
_OBJECTS = ("overview", "optimization_capabilities")
_KNOWN = frozenset(
    {*_REQUIRED, *_PLAIN_TEXTS, *_OBJECTS, "score", "size", "precision", "labels", "id", "created_date", "file"}
)
IDENTITY = frozenset({"name", "version", "project_id", "project_name", "precision"})


class Texts:
    """The texts of a form by name, limited in size. Of repeated texts, the last one counts, except for labels."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._size = 0
        self._errors: dict[str, FieldError] = {}

    @property
    def names(self) -> list[str]:
        """The names that arrived, in their order."""
        return list(self._texts)

    def __contains__(self, name: str) -> bool:
        return name in self._texts

    def last(self, name: str) -> str | None:
        """Return the last text of a name, or None."""
        return self._texts[name][-1] if name in self._texts else None

    def all(self, name: str) -> Sequence[str]:
        """Return all texts of a name."""
        return self._texts.get(name, [])

    def errors(self) -> Iterator[FieldError]:
        """Yield the errors of parts that are not valid texts."""
        yield from self._errors.values()

    def add(self, name: str, data: bytes) -> None:
        """Add a text.

        Raises:
            RestError: 413, the texts are too large.
        """
        self._size += len(data) + len(name)
        if self._size > _MAX_FORM_BYTES:
            raise RestError(answers.detail(413, f"The fields take more than {_MAX_FORM_BYTES} bytes."))
        self._errors.pop(name, None)
        try:
            value = data.decode()
        except UnicodeDecodeError:
            value = ""
            self._errors[name] = FieldError("string_unicode", name, "Input should be valid UTF-8", None)
        self._texts.setdefault(name, []).append(value)

    def refuse(self, name: str, kind: str, message: str) -> None:
        """Record the error of a part that is not a valid text."""
        self._texts.setdefault(name, []).append("")
        self._errors[name] = FieldError(kind, name, message, None)


def read_text(reader: MultipartReader, part: PartHeader, texts: Texts) -> None:
    """Read a part that is not the file."""
    if part.file_name is not None:
        if part.name in _KNOWN:
            texts.refuse(part.name, "string_type", "Input should be a valid string")
        else:
            texts.add(part.name, b"")
        return
    try:
        texts.add(part.name, reader.text(MAX_TEXT_BYTES))
    except ValueError:
        texts.refuse(part.name, "string_too_long", f"String should have at most {MAX_TEXT_BYTES} bytes")


def form_texts(content_type: str, chunks: Iterator[bytes]) -> Texts:
    """Read the texts of a form, without its files. A body that is not a form has no texts.

    Raises:
        RestError: The body is malformed or too large.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        return urlencoded_texts(chunks)
    texts = Texts()
    if media_type == "multipart/form-data":
        reader = MultipartReader(chunks, content_type)
        for part in reader.parts():
            if part.name != "file":
                read_text(reader, part, texts)
    return texts


def urlencoded_texts(chunks: Iterator[bytes]) -> Texts:
    """Read the texts of application/x-www-form-urlencoded.

    Raises:
        RestError: 413, the body is too large.
    """
    body = bytearray()
    for chunk in chunks:
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise RestError(answers.detail(413, f"The fields take more than {_MAX_FORM_BYTES} bytes."))
    texts = Texts()
    try:
        # Decoded as latin-1, so that the bytes of each value can be validated separately.
        pairs = parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1", max_num_fields=1000)
    except ValueError:
        raise RestError(answers.BROKEN_BODY) from None
    for name, value in pairs:
        texts.add(name.encode("latin-1").decode(errors="replace"), value.encode("latin-1"))
    return texts


@dataclass(slots=True)
class RegistrationForm:
    """The fields of a registration, as far as they arrived. Implements `services.models.RegistrationDraft`."""

    texts: Texts = field(default_factory=Texts)
    file: PartHeader | None = None
    """The last file."""
    refusal: RestError | None = None
    """The error that `is_refused` found."""

    @property
    def is_settled(self) -> bool:
        """Whether all required texts arrived."""
        return all(name in self.texts for name in _REQUIRED)

    @property
    def has_identity(self) -> bool:
        """Whether all texts of the identity arrived."""
        return all(name in self.texts for name in IDENTITY)

    def is_refused(self) -> bool:
        """Return whether the form is invalid whatever follows, though the error depends on what follows.

        Raises:
            RestError: The form is invalid, and the error is final.
        """
        try:
            self.spec(is_whole=False)
        except RestError as error:
            if self.is_settled:
                raise
            self.refusal = error
            return True
        return False

    def spec(self, *, is_whole: bool = True) -> ModelSpec:
        """Return the specification of the model.

        Args:
            is_whole: Whether the form is complete, so that missing fields are errors.

        Raises:
            RestError: A field is invalid.
        """
        texts = self.texts
        model_id = texts.last("id") or ""
        if not model_id.strip():
            model_id = ""
        if model_id and not is_model_id(model_id):
            raise RestError(answers.INVALID_ID)
        items = [error.item for error in self._errors() if is_whole or error.item["type"] != "missing"]
        if items:
            raise RestError(answers.details(items))
        values: dict[str, object] = {
            name: json_object(name, texts.last(name) or "") for name in _OBJECTS if name in texts
        }
        if "labels" in texts:
            values["labels"] = labels(texts.all("labels"))
        unknown = [name for name in texts.names if name not in _KNOWN]
        if unknown:
            raise RestError(answers.text(422, f"Unsupported key(s) found: {', '.join(unknown)[:1000]}\n"))
        artifact = _artifact(self.file) if self.file is not None else ArtifactSpec()
        # An empty text counts as missing.
        values |= {name: value for name in _PLAIN_TEXTS if (value := texts.last(name))}
        if text := texts.last("precision"):
            values["precisions"] = precision(text)
        if text := texts.last("score"):
            values["score"] = number("score", text)
        return ModelSpec(
            fields=ModelFields(name=texts.last("name") or "", version=texts.last("version") or "", **values),  # type: ignore[arg-type]
            id=model_id,
            created_date=texts.last("created_date") or "",
            artifact=artifact,
        )

    def _errors(self) -> Iterator[FieldError]:
        texts = self.texts
        if "file" in texts:
            message = "Value error, Expected UploadFile, received: <class 'str'>"
            yield FieldError("value_error", "file", message, texts.last("file"))
        elif self.file is None:
            yield FieldError("missing", "file", "Field required", None)
        for name in _REQUIRED:
            value = texts.last(name)
            if value is None:
                yield FieldError("missing", name, "Field required", None)
            elif not value.strip():
                yield FieldError("value_error", name, "Value error, must not be blank", value)
        yield from _number_errors(texts, {"score": number, "size": integer})
        yield from texts.errors()


def _shown_size(name: str, text: str) -> int:
    """Return the size that the registry is to show, or raise FieldError."""
    size = integer(name, text)
    if not 0 <= size <= MAX_SIZE:
        raise FieldError("value_error", name, f"Value error, must be from 0 to {MAX_SIZE}", text)
    return size


def _number_errors(texts: Texts, readers: Mapping[str, Callable[[str, str], float]]) -> Iterator[FieldError]:
    for name, read in readers.items():
        value = texts.last(name)
        if value is None:
            continue
        try:
            read(name, value)
        except FieldError as error:
            yield error


def _artifact(file: PartHeader) -> ArtifactSpec:
    """Return the file name and media type of a file part.

    Raises:
        RestError: 422, the media type is not that of a ZIP, or the name leads out of its folder.
    """
    # Compared exactly. Intel's Model Registry never accepted other spellings.
    if file.content_type not in ZIP_MEDIA_TYPES:
        raise RestError(answers.text(422, f"Unsupported file type found: {file.content_type[:200] or None}\n"))
    path = PureWindowsPath(file.file_name or "model.zip")  # splits at / and \
    if ".." in path.parts or not path.name:
        error = FieldError("value_error", "file", "Value error, the file name must be a plain one", file.file_name)
        raise RestError(answers.details([error.item]))
    return ArtifactSpec(file_name=path.name, media_type=MEDIA_TYPE)


def changes(texts: Texts) -> Mapping[str, object]:
    """Return the new values of fields by name. Blank texts and unknown fields change nothing.

    Raises:
        RestError: A field is invalid, or there is nothing to change.
    """
    items = [error.item for error in _change_errors(texts)]
    if items:
        raise RestError(answers.details(items))
    readers: dict[str, Callable[[str], object]] = {
        **dict.fromkeys((*_REQUIRED, *_PLAIN_TEXTS, "created_date"), str),
        **{name: partial(json_object, name) for name in _OBJECTS},
        "labels": lambda _: labels(texts.all("labels")),
        "precision": precision,
        "score": partial(number, "score"),
        "size": partial(integer, "size"),
    }
    found = {name: read(text) for name, read in readers.items() if (text := texts.last(name))}
    if not found:
        raise RestError(answers.NOTHING_TO_CHANGE)
    if "size" in found:
        found["compat_size"] = found.pop("size")
    if "precision" in found:
        found["precisions"] = found.pop("precision")
        found["compat_precision"] = None
    return found


def _change_errors(texts: Texts) -> Iterator[FieldError]:
    for error in texts.errors():
        if error.field in _KNOWN - {"id", "file"}:
            yield error
    yield from _number_errors(texts, {"score": number, "size": _shown_size})
    for name in _REQUIRED:
        value = texts.last(name)
        if value and not value.strip():
            yield FieldError("value_error", name, "Value error, must not be blank", value)
