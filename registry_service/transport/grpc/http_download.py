"""The HTTP side of a download: conditions, ranges and headers (RFC 9110, RFC 6266).

The headers are sent as initial metadata. gRPC does not transmit some of them under their own names, so Envoy's filter
(gateway/) turns `x-http-status` into `:status`, `x-content-length` into `content-length`, and `x-content-type` into
`content-type`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from urllib.parse import quote

from registry_service.domain.errors import ArtifactEtagMismatchError, RangeNotSatisfiableError, RegistryError
from registry_service.domain.models import Model
from registry_service.domain.validation import DIRECTION_CONTROLS

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))", re.IGNORECASE)
_NO_BYTE = (1, 0)
_BYTES = "application/octet-stream"

IMMUTABLE = "private, immutable"
"""What caches are told of bytes that never change, and that not everybody may read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadPlan:
    """The response to an HTTP download."""

    metadata: tuple[tuple[str, str], ...]
    content_type: str
    offset: int
    length: int
    """Bytes of the body, 0 where it has none."""
    error: RegistryError | None = None
    """What is wrong with the request, where it is refused. The Intel-compatible API answers that without a body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Representation:
    """The bytes that a request selects."""

    model_id: str
    etag: str
    modified: datetime
    size: int
    file_name: str


def plan_download(
    model: Model, headers: Mapping[str, str], content_type: str = _BYTES, *, cache_control: str = ""
) -> DownloadPlan:
    """Plan the response to a GET or HEAD of a model's artifact.

    Args:
        model: The model.
        headers: Headers of the request, by lower-case name.
        content_type: The `Content-Type` header. The artifact's own media type is declared by its registrant and must
            not be sent: a browser would execute a declared script.
        cache_control: The `Cache-Control` header; empty for none.
    """
    artifact = model.artifact
    wanted = _Representation(
        model_id=model.id,
        etag=f'"{artifact.sha256}"',
        modified=_modified(model),
        size=artifact.size,
        file_name=artifact.file_name,
    )
    return _plan(wanted, headers, content_type, cache_control)


def plan_file_download(model: Model, path: str, size: int, headers: Mapping[str, str]) -> DownloadPlan:
    """Plan the response to a GET or HEAD of a file of a model's artifact.

    Args:
        model: The model.
        path: Path of the file in the artifact.
        size: Size of the file in bytes.
        headers: As for `plan_download`.
    """
    wanted = _Representation(
        model_id=model.id,
        # The artifact never changes, so its digest and the path determine the bytes.
        etag=f'"{hashlib.sha256(f"{model.artifact.sha256}/{path}".encode(errors="surrogatepass")).hexdigest()}"',
        modified=_modified(model),
        size=size,
        file_name=path.rstrip("/").rpartition("/")[2] or "file",
    )
    return _plan(wanted, headers, _BYTES, IMMUTABLE)


def _modified(model: Model) -> datetime:
    # The artifact never changes, so it was last modified when it was registered.
    return model.create_time.astimezone(UTC).replace(microsecond=0)


def _plan(wanted: _Representation, headers: Mapping[str, str], content_type: str, cache_control: str) -> DownloadPlan:
    etag, modified, size = wanted.etag, wanted.modified, wanted.size
    common = [
        ("etag", etag),
        ("last-modified", format_datetime(modified, usegmt=True)),
        ("accept-ranges", "bytes"),
    ]
    if cache_control:
        common.append(("cache-control", cache_control))

    head = headers.get("x-envoy-original-method") == "HEAD"

    def plan(
        status: int,
        offset: int,
        length: int,
        body: int,
        *more: tuple[str, str],
        error: RegistryError | None = None,
    ) -> DownloadPlan:
        metadata = [("x-http-status", str(status)), *common, *more]
        if head:
            # This response needs no message.
            metadata.append(("x-content-type", content_type))
        if status != 304:
            metadata.append(("x-content-length", str(length)))
        return DownloadPlan(
            metadata=tuple(metadata),
            content_type=content_type,
            offset=offset,
            length=0 if head else body,
            error=error,
        )

    if _precondition_failed(headers, etag, modified):
        return plan(412, 0, 0, 0, error=ArtifactEtagMismatchError(wanted.model_id, etag))
    if _not_modified(headers, etag, modified):
        return plan(304, 0, 0, 0)
    disposition = ("content-disposition", content_disposition(wanted.file_name))
    # Ranges apply only to GET (RFC 9110, 14.2).
    selected = None if head else _range(headers, etag, modified, size)
    if selected is None:
        return plan(200, 0, size, size, disposition)
    first, last = selected
    if first > last:
        error = RangeNotSatisfiableError(wanted.model_id, size)
        return plan(416, 0, 0, 0, ("content-range", f"bytes */{size}"), error=error)
    length = last - first + 1
    return plan(206, first, length, length, disposition, ("content-range", f"bytes {first}-{last}/{size}"))


def content_disposition(file_name: str) -> str:
    """Return a `Content-Disposition` with the file name, in ASCII and in full (RFC 6266)."""
    file_name = DIRECTION_CONTROLS.sub("_", file_name)
    plain = re.sub(r'[^ -~]|["\\%]', "_", file_name)
    extended = "" if plain == file_name else f"; filename*=UTF-8''{quote(file_name, safe='')}"
    return f'attachment; filename="{plain}"{extended}'


def _precondition_failed(headers: Mapping[str, str], etag: str, modified: datetime) -> bool:
    """Return whether a precondition fails: the client expects another artifact (RFC 9110, 13.1.1 and 13.1.4)."""
    if "if-match" in headers:
        # Strong comparison: a weak tag never matches.
        candidates = {item.strip() for item in headers["if-match"].split(",")}
        return "*" not in candidates and etag not in candidates
    since = _http_date(headers.get("if-unmodified-since", ""))
    return since is not None and modified > since


def _not_modified(headers: Mapping[str, str], etag: str, modified: datetime) -> bool:
    if "if-none-match" in headers:
        candidates = {item.strip().removeprefix("W/") for item in headers["if-none-match"].split(",")}
        return "*" in candidates or etag in candidates
    since = _http_date(headers.get("if-modified-since", ""))
    return since is not None and modified <= since


def _range(headers: Mapping[str, str], etag: str, modified: datetime, size: int) -> tuple[int, int] | None:
    """Return the first and last byte of a range; None for the whole, first > last for an unsatisfiable range.

    The response to several ranges, or to an invalid range, is the whole, as RFC 9110 allows.
    """
    condition = headers.get("if-range")
    if condition is not None and condition != etag and _http_date(condition) != modified:
        return None
    match = _RANGE.fullmatch(headers.get("range", "").replace(" ", ""))
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return _NO_BYTE if int(suffix) == 0 else (max(size - int(suffix), 0), size - 1)
    if last is not None and int(last) < int(first):
        return None
    if int(first) >= size:
        return _NO_BYTE
    return int(first), min(int(last), size - 1) if last is not None else size - 1


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date
