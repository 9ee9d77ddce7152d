"""Finds the model in an artifact and reads its signature.

The bytes of an artifact determine its format, not its name or media type. No
content can prevent a registration: whatever cannot be read becomes a problem of
the signature, or there is no signature.
"""

import logging
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from typing_extensions import override

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import ArtifactLostError, DataLossError, NotAnArchiveError
from registry_service.domain.models import ArtifactSpec, is_zip_media_type
from registry_service.domain.signature import MORE_MODELS, Signature
from registry_service.services.archive_checks import problems_of
from registry_service.services.archives import Archive, open_archive
from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, clean
from registry_service.signatures.dispatch import (
    are_parts_of_one,
    format_by_content,
    format_by_name,
    read_container,
    read_model,
)
from registry_service.signatures.file_reader import Budget, FormatError, LimitError, Reader
from registry_service.signatures.recognition import array_holds_objects

logger = logging.getLogger(__name__)

HEAD_BYTES = limits.HEAD_BYTES
"""Number of first bytes that `read_signature` takes."""
_ZIP_MAGIC = b"PK\x03\x04"
_SUFFIXES = (".xml", ".onnx", ".safetensors", ".gguf", ".tflite", ".lite")
_RECOGNIZED_SUFFIXES = (
    *(".pt", ".pth", ".ptl", ".torchscript", ".ckpt", ".bin", ".keras", ".h5", ".hdf5", ".pkl", ".pickle", ".joblib"),
    *(".npy", ".npz", ".pb"),
)
"""Suffixes of formats that are only recognized."""
_ACCESSORY = re.compile(
    r"(?<![a-z])(?:(?:de)?tokenizers?|vocoder|vae|(?:text|image|vision|audio|speech|speaker)_encoder|postnet|embed_tokens"
    r"|(?:text|vision)_embeddings?|resampler|projector|mmproj|safety_checker|feature_extractor|scheduler|processor"
    r"|(?:pre|post)_?process(?:or|ing)?|adapter|lora|draft|assistant|__macosx)(?![a-z])"
)
"""Words in the path of a model that only accompanies another one."""


def read_signature(store: ArtifactStore, artifact: ArtifactSpec, key: str, size: int, head: bytes) -> Signature | None:
    """Return the signature of a stored artifact, or None if its format is unknown. Raises nothing.

    Args:
        store: The store of the artifact.
        artifact: Its file name and media type.
        key: Its object key.
        size: Its size in bytes.
        head: Its first HEAD_BYTES. If they and the file name show no known format, nothing is read from the store.
    """
    try:
        budget = Budget()
        if head.startswith(_ZIP_MAGIC) or is_zip_media_type(artifact.media_type):
            with open_archive(store, key, size, directory_max_bytes=limits.DIRECTORY_BYTES) as archive:
                signature = _from_archive(_ZipArtifact(store, key, archive, budget), budget)
                problems = problems_of(archive, Reader(_StoredRange(store, key, 0, size, budget)), budget)
            return _with_problems(signature, problems)
        kind = format_by_content(head, size, artifact.file_name)
        if kind is None and format_by_name(artifact.file_name) is None:
            return None
        reader = Reader(_StoredRange(store, key, 0, size, budget))
        signature = read_model(reader, budget, file_name=artifact.file_name, kind=kind, siblings=_NoSiblings())
        return None if signature is None else replace(signature, file_name="")
    except (NotAnArchiveError, FormatError) as error:
        if isinstance(error, NotAnArchiveError) and "limit" in error.metadata:
            limit = f"{limits.DIRECTORY_BYTES >> 20} MiB"
            problem = f"The ZIP was not searched for a model: its central directory is larger than {limit}."
            return Signature(format="", problems=(problem,))
        logger.info("the artifact %s is not searched for a model: %s", key, error)
    except Exception:
        logger.warning("the search for a model in the artifact %s failed", key, exc_info=True)
    return None


def _with_problems(signature: Signature | None, problems: Iterable[str]) -> Signature | None:
    """Return a signature with more problems. Without a signature, they become those of one without a format."""
    added = tuple(map(clean, problems))
    if not added:
        return signature
    known = Signature(format="") if signature is None else signature
    return replace(known, problems=(*known.problems, *added))


def _from_archive(artifact: "_ZipArtifact", budget: Budget) -> Signature | None:
    """Read the best candidate for a model in a ZIP."""
    container = read_container(artifact.sizes)
    if container is not None:
        return _with_problems(container, _pickled_arrays(artifact) if container.format == "numpy" else ())
    names = artifact.candidates(_SUFFIXES)
    others = artifact.candidates(_RECOGNIZED_SUFFIXES)
    signature = _first_model(artifact, budget, names, others)
    is_read = signature is not None and signature.file_name.lower().endswith(_SUFFIXES)
    return _with_problems(signature, _unread(artifact, names) or (() if is_read else _unread(artifact, others)))


def _pickled_arrays(artifact: "_ZipArtifact") -> Iterator[str]:
    """Yield the problems of arrays in an `.npz` that contain, or may contain, pickled objects."""
    pickled: list[str] = []
    unknown: list[str] = []
    for name in list(artifact.sizes)[: limits.ARRAYS]:
        head = artifact.head(name)
        holds_objects = None if artifact.sizes[name] and not head else array_holds_objects(head)
        if holds_objects is not False:
            (unknown if holds_objects is None else pickled).append(name)
    if pickled:
        yield (
            f"Arrays contain pickled objects, the first in {pickled[0]!r}. Loading a pickle can run code: load only"
            " files that you trust."
        )
    if unknown:
        yield f"The array in {unknown[0]!r} may contain pickled objects, which can run code when loaded."
    if len(artifact.sizes) > limits.ARRAYS:
        yield f"Only the first {limits.ARRAYS} arrays were searched for pickled objects."


def _unread(artifact: "_ZipArtifact", names: Sequence[str]) -> Sequence[str]:
    """Return the problem of candidates that cannot be read, if there are any."""
    unread = [name for name in names if not artifact.is_readable(name)]
    if not unread:
        return ()
    more = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
    reason = "they are encrypted or use a compression method other than deflate"
    return (f"The ZIP has members that were not read, because {reason}: {unread[0][:200]!r}{more}.",)


def _first_model(
    artifact: "_ZipArtifact", budget: Budget, names: Sequence[str], others: Sequence[str]
) -> Signature | None:
    """Read the first model among the candidates. `others` have formats that are only recognized."""
    known = artifact.known(names)
    found = next(known, None)
    is_only = found is None or all(are_parts_of_one(found[0], other) for other, _ in known)
    if found is None:
        # A file that is named as a model and is not one gets a problem.
        found = next(((name, "") for name in names if format_by_name(name)), None)
    if found is None:
        found = next(artifact.known(others), None) or next(
            ((name, "") for name in others if format_by_name(name)), None
        )
    reader = None if found is None else artifact.reader(found[0])
    if found is None or reader is None:
        return None
    name, kind = found
    siblings = _Folder(artifact, posixpath.dirname(name))
    signature = read_model(reader, budget, file_name=name, kind=kind or None, siblings=siblings)
    if signature is None or is_only:
        return signature
    return replace(signature, problems=(*signature.problems, MORE_MODELS))


class _ZipArtifact:
    """A ZIP in the store, with the budget of reading it."""

    def __init__(self, store: ArtifactStore, key: str, archive: Archive, budget: Budget) -> None:
        self._store = store
        self._key = key
        self._archive = archive
        self._budget = budget
        self.sizes = {member.name: member.size for member in archive.members()}

    def is_readable(self, name: str) -> bool:
        """Return whether a member is not encrypted, and stored or deflated."""
        return self._archive.is_readable(name)

    def candidates(self, suffixes: tuple[str, ...]) -> list[str]:
        """Return the members that may be models by their suffix, the best first.

        Models that accompany others come last, and before them IR files without weights. Otherwise members are
        ordered by depth, length of the name, and alphabet.
        """

        def rank(name: str) -> tuple[bool, bool, int, int, str]:
            stem, suffix = posixpath.splitext(name)
            lacks_weights = suffix.lower() == ".xml" and f"{stem}.bin" not in self.sizes
            is_accessory = _ACCESSORY.search(name.lower()) is not None
            return is_accessory, lacks_weights, name.count("/"), len(name), name

        return sorted((name for name in self.sizes if name.lower().endswith(suffixes)), key=rank)[: limits.CANDIDATES]

    def known(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yield the members of known formats, each with its format."""
        for name in names:
            kind = format_by_content(self.head(name), self.sizes[name], name)
            if kind is not None:
                yield name, kind

    def head(self, name: str) -> bytes:
        """Return the first HEAD_BYTES of a member; empty if it cannot be read."""
        try:
            reader = self.reader(name)
            return b"" if reader is None else reader.peek(HEAD_BYTES)
        except FormatError:
            return b""

    def reader(self, name: str) -> Reader | None:
        """Return a reader of a member, or None if it is encrypted, or neither stored nor deflated."""
        size = self.sizes[name]
        offset = self._archive.stored_offset(name)
        if offset is not None:
            return Reader(_StoredRange(self._store, self._key, offset, size, self._budget))
        try:
            opened = self._archive.open(name)
        except NotAnArchiveError:
            return None
        return None if opened is None else Reader(_Inflated(opened[1], size, self._budget))


class _NoSiblings(Siblings):
    """The siblings of an artifact that is a model itself: none."""

    @override
    def size(self, path: str) -> int | None:
        return None

    @override
    def read(self, path: str) -> bytes | None:
        return None


@dataclass(frozen=True, slots=True)
class _Folder(Siblings):
    """The siblings of a member of a ZIP."""

    artifact: "_ZipArtifact"
    path: str

    @override
    def size(self, path: str) -> int | None:
        return self.artifact.sizes.get(self._name(path))

    @override
    def read(self, path: str) -> bytes | None:
        size = self.size(path)
        if size is None or size > limits.CONFIGURATION_BYTES:
            return None
        try:
            reader = self.artifact.reader(self._name(path))
            return None if reader is None else reader.take(size)
        except FormatError:
            return None

    def _name(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self.path, path))


@dataclass(frozen=True, slots=True)
class _StoredRange:
    """A range of a stored object, as a `file_reader.Source`."""

    store: ArtifactStore
    key: str
    start: int
    size: int
    budget: Budget
    is_seekable: bool = True

    def read(self, offset: int, length: int) -> bytes:
        self.budget.spend(length)
        data = b"".join(self.store.read(self.key, self.start + offset, length))
        if len(data) != length:
            raise ArtifactLostError
        return data


class _Inflated:
    """A compressed member of a ZIP, as a `file_reader.Source` that is not seekable."""

    def __init__(self, pieces: Iterator[bytes], size: int, budget: Budget) -> None:
        self._pieces = pieces
        self._piece = b""
        self._piece_start = 0
        self._budget = budget
        self.size = size
        self.is_seekable = False

    def read(self, offset: int, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            start = offset + len(data) - self._piece_start
            data += self._piece[start : start + length - len(data)]
            if len(data) < length:
                self._next()
        return bytes(data)

    def _next(self) -> None:
        self._budget.check_time()
        self._piece_start += len(self._piece)
        if self._piece_start > limits.INFLATED_BYTES:
            raise LimitError(f"Only the first {limits.INFLATED_BYTES >> 20} MiB were decompressed and read.")
        try:
            self._piece = next(self._pieces, b"")
        except ArtifactLostError:
            raise
        except DataLossError as error:
            raise FormatError("The file is damaged: it cannot be decompressed.") from error
        if not self._piece:
            raise FormatError("The file is truncated.")
