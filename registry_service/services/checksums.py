"""Counts and hashes the bytes of an artifact on their way."""

import hashlib
from collections.abc import Iterable, Iterator

from registry_service.domain.errors import ArtifactMismatchError, ArtifactTooLargeError, InvalidArgumentError
from registry_service.domain.models import ArtifactSpec
from registry_service.services.signature_reading import HEAD_BYTES


class RunningChecksum:
    """What remains of bytes, from the first on, once they have passed: how many, the first, and their SHA-256."""

    def __init__(self) -> None:
        self.size = 0
        self.head = b""
        """The first HEAD_BYTES."""
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Takes the next bytes."""
        self.size += len(piece)
        self._hash.update(piece)
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]

    def sha256(self) -> str:
        """Returns their SHA-256 in hexadecimal."""
        return self._hash.hexdigest()

    def copy(self) -> "RunningChecksum":
        """Returns another, to go on from here."""
        other = RunningChecksum()
        other.size, other.head, other._hash = self.size, self.head, self._hash.copy()
        return other


class Measure:
    """Looks at the bytes of an artifact as they pass, and refuses too many at once."""

    def __init__(self, spec: ArtifactSpec, max_bytes: int) -> None:
        self.seen = RunningChecksum()
        self._spec = spec
        self._max_bytes = max_bytes

    def of(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Hands the pieces on.

        Raises:
            ArtifactTooLargeError: There are more bytes than an artifact may have.
            ArtifactMismatchError: There are more than were declared.
        """
        for piece in pieces:
            size = self.seen.size + len(piece)
            if size > self._max_bytes:
                raise ArtifactTooLargeError(self._max_bytes)
            if self._spec.size is not None and size > self._spec.size:
                raise ArtifactMismatchError.of(
                    "artifact.size_bytes", f"is {self._spec.size}, but more bytes were received."
                )
            self.seen.add(piece)
            yield piece

    def sha256(self) -> str:
        """Compares what came with what was declared and returns its SHA-256 in hexadecimal.

        Raises:
            ArtifactMismatchError: Size or digest differ.
            InvalidArgumentError: Nothing came.
        """
        if self.seen.size == 0:
            raise InvalidArgumentError.of("artifact", "must not be empty.")
        if self._spec.size is not None and self.seen.size != self._spec.size:
            raise ArtifactMismatchError.of(
                "artifact.size_bytes", f"is {self._spec.size}, but {self.seen.size} bytes were received."
            )
        digest = self.seen.sha256()
        if self._spec.sha256 and digest != self._spec.sha256:
            raise ArtifactMismatchError.of(
                "artifact.sha256", f"does not match the received bytes, which have the SHA-256 {digest}."
            )
        return digest
