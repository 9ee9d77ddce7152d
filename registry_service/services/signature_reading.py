"""Finds the model in an artifact and reads what it says about itself.

An artifact is what its bytes say, whatever its name or media type. Nothing that
is in it can keep it from being registered: what can't be read is a problem in
the signature, or there is none.
"""

import logging
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import ArtifactLostError, DataLossError, NotAnArchiveError
from registry_service.domain.models import ArtifactSpec, is_zip_media_type
from registry_service.domain.signature import MORE_MODELS, Signature
from registry_service.services.archive_checks import problems_of
from registry_service.services.archives import Archive, open_archive
from registry_service.signatures import limits
from registry_service.signatures.builder import clean
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
"""How many of an artifact's first bytes `read_signature` wants."""
_ZIP_BEGINNING = b"PK\x03\x04"
_SUFFIXES = (".xml", ".onnx", ".safetensors", ".gguf", ".tflite", ".lite")
_OTHER_SUFFIXES = (
    *(".pt", ".pth", ".ptl", ".torchscript", ".ckpt", ".bin", ".keras", ".h5", ".hdf5", ".pkl", ".pickle", ".joblib"),
    *(".npy", ".npz", ".pb"),
)
"""Of files that are only recognized."""
_ACCESSORY = re.compile(
    r"(?<![a-z])(?:(?:de)?tokenizers?|vocoder|vae|(?:text|image|vision|audio|speech|speaker)_encoder|postnet|embed_tokens"
    r"|(?:text|vision)_embeddings?|resampler|projector|mmproj|safety_checker|feature_extractor|scheduler|processor"
    r"|(?:pre|post)_?process(?:or|ing)?|adapter|lora|draft|assistant|__macosx)(?![a-z])"
)
"""What in a path tells that a model only serves another one, where there is another."""


def read_signature(store: ArtifactStore, artifact: ArtifactSpec, key: str, size: int, head: bytes) -> Signature | None:
    """Returns what a stored artifact says about the model inside; None where it is of no known format.

    `head` is its first HEAD_BYTES: where they and the name show nothing that we
    read, the store isn't asked. Raises nothing.
    """
    try:
        budget = Budget()
        if head.startswith(_ZIP_BEGINNING) or is_zip_media_type(artifact.media_type):
            with open_archive(store, key, size, directory_max_bytes=limits.DIRECTORY_BYTES) as archive:
                signature = _from_archive(_ZipArtifact(store, key, archive, budget), budget)
                oddities = problems_of(archive, Reader(_StoredRange(store, key, 0, size, budget)), budget)
            return _with_problems(signature, oddities)
        kind = format_by_content(head, size, artifact.file_name)
        if kind is None and format_by_name(artifact.file_name) is None:
            return None
        reader = Reader(_StoredRange(store, key, 0, size, budget))
        signature = read_model(reader, budget, file_name=artifact.file_name, kind=kind, siblings=_NoSiblings())
        return None if signature is None else replace(signature, file_name="")
    except (NotAnArchiveError, FormatError) as error:
        if isinstance(error, NotAnArchiveError) and "limit" in error.metadata:
            problem = f"No model was looked for: the ZIP's directory takes over {limits.DIRECTORY_BYTES >> 20} MiB."
            return Signature(format="", problems=(problem,))
        logger.info("No model is looked for in the artifact %s: %s", key, error)
    except Exception:
        logger.warning("Looking for a model in the artifact %s failed", key, exc_info=True)
    return None


def _with_problems(signature: Signature | None, problems: Iterable[str]) -> Signature | None:
    """Returns a signature with more problems; one of no format where there was none."""
    told = tuple(map(clean, problems))
    if not told:
        return signature
    known = Signature(format="") if signature is None else signature
    return replace(known, problems=(*known.problems, *told))


def _from_archive(artifact: "_ZipArtifact", budget: Budget) -> Signature | None:
    """Reads the first model of a ZIP, in the order of its candidates."""
    container = read_container(artifact.sizes)
    if container is not None:
        return _with_problems(container, _pickled_arrays(artifact) if container.format == "numpy" else ())
    names = artifact.candidates(_SUFFIXES)
    others = artifact.candidates(_OTHER_SUFFIXES)
    signature = _first_model(artifact, budget, names, others)
    is_read = signature is not None and signature.file_name.lower().endswith(_SUFFIXES)
    return _with_problems(signature, _unread(artifact, names) or (() if is_read else _unread(artifact, others)))


def _pickled_arrays(artifact: "_ZipArtifact") -> Iterator[str]:
    """Yield the problems of the arrays of an `.npz` that hold pickled objects, or may hold them."""
    pickled: list[str] = []
    unknown: list[str] = []
    for name in list(artifact.sizes)[: limits.ARRAYS]:
        head = artifact.head(name)
        holds_objects = None if artifact.sizes[name] and not head else array_holds_objects(head)
        if holds_objects is not False:
            (unknown if holds_objects is None else pickled).append(name)
    if pickled:
        yield (
            f"It has arrays that hold pickled objects, the first in {pickled[0]!r}: loading those runs code that is in"
            " it. Load them only from those whom you trust."
        )
    if unknown:
        yield (
            f"Whether its array in {unknown[0]!r} holds pickled objects, which run code when they are loaded, is"
            " unknown."
        )
    if len(artifact.sizes) > limits.ARRAYS:
        yield f"Only its first {limits.ARRAYS} arrays were searched for pickled objects."


def _unread(artifact: "_ZipArtifact", names: Sequence[str]) -> Sequence[str]:
    """Return the problem of those candidates that can't be read; none where all can."""
    unread = [name for name in names if not artifact.is_readable(name)]
    if not unread:
        return ()
    more = f", and {len(unread) - 1} more" if len(unread) > 1 else ""
    reason = "they are encrypted or compressed with another method than deflate"
    return (f"The ZIP has members that were not looked into, as {reason}: {unread[0][:200]!r}{more}.",)


def _first_model(
    artifact: "_ZipArtifact", budget: Budget, names: Sequence[str], others: Sequence[str]
) -> Signature | None:
    """Read the first model among the candidates; `others` are those that are only recognized."""
    known = artifact.known(names)
    found = next(known, None)
    is_only = found is None or all(are_parts_of_one(found[0], other) for other, _ in known)
    if found is None:
        # What is called a model and isn't one is worth a word.
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
    """A ZIP in the store."""

    def __init__(self, store: ArtifactStore, key: str, archive: Archive, budget: Budget) -> None:
        self._store = store
        self._key = key
        self._archive = archive
        self._budget = budget
        self.sizes = {member.name: member.size for member in archive.members()}

    def is_readable(self, name: str) -> bool:
        """Return whether a member is neither encrypted nor compressed in a way we don't read."""
        return self._archive.is_readable(name)

    def candidates(self, suffixes: tuple[str, ...]) -> list[str]:
        """Returns the members that may be models, by their names, best first.

        What only serves another model comes last, then an IR without its weights;
        before them go the shallowest, of those the shortest names, by the alphabet.
        """

        def rank(name: str) -> tuple[bool, bool, int, int, str]:
            stem, suffix = posixpath.splitext(name)
            lacks_weights = suffix.lower() == ".xml" and f"{stem}.bin" not in self.sizes
            is_accessory = _ACCESSORY.search(name.lower()) is not None
            return is_accessory, lacks_weights, name.count("/"), len(name), name

        return sorted((name for name in self.sizes if name.lower().endswith(suffixes)), key=rank)[: limits.CANDIDATES]

    def known(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Yields those members whose format is known, with it."""
        for name in names:
            kind = format_by_content(self.head(name), self.sizes[name], name)
            if kind is not None:
                yield name, kind

    def head(self, name: str) -> bytes:
        """Returns a member's first bytes; none where it can't be read."""
        try:
            reader = self.reader(name)
            return b"" if reader is None else reader.peek(HEAD_BYTES)
        except FormatError:
            return b""

    def reader(self, name: str) -> Reader | None:
        """Opens a member; None where it is encrypted, or compressed in a way we don't read."""
        size = self.sizes[name]
        offset = self._archive.stored_offset(name)
        if offset is not None:
            return Reader(_StoredRange(self._store, self._key, offset, size, self._budget))
        try:
            opened = self._archive.open(name)
        except NotAnArchiveError:
            return None
        return None if opened is None else Reader(_Inflated(opened[1], size, self._budget))


class _NoSiblings:
    """What is beside an artifact that is a model itself."""

    def size(self, _path: str) -> int | None:
        return None

    def read(self, _path: str) -> bytes | None:
        return None


@dataclass(frozen=True, slots=True)
class _Folder:
    """What is beside a member of a ZIP."""

    artifact: "_ZipArtifact"
    path: str

    def size(self, path: str) -> int | None:
        return self.artifact.sizes.get(self._name(path))

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
    """A range of a stored object, as a `signatures.file_reader.Source`."""

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
    """A member of a ZIP as it is decompressed, as a `signatures.file_reader.Source`: what is skipped is dropped."""

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
            raise LimitError(f"Only its first {limits.INFLATED_BYTES >> 20} MiB were decompressed and read.")
        try:
            self._piece = next(self._pieces, b"")
        except ArtifactLostError:
            raise
        except DataLossError as error:
            raise FormatError("It is damaged: it can't be decompressed.") from error
        if not self._piece:
            raise FormatError("It is cut short.")
