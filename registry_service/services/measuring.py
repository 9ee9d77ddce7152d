"""Counts and hashes the bytes of an artifact on their way."""

import hashlib
from collections.abc import Iterable, Iterator

from registry_service.domain.errors import ArtifactMismatchError, ArtifactTooLargeError, InvalidArgumentError
from registry_service.domain.models import ArtifactSpec
from registry_service.services.introspection import HEAD_BYTES


class Measure:
    """Counts and hashes the bytes of an artifact as they pass, keeps the first, and refuses too many at once."""

    def __init__(self, spec: ArtifactSpec, max_bytes: int) -> None:
        self.head = b""
        """The first HEAD_BYTES."""
        self._spec = spec
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.size = 0

    def of(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Hands the pieces on.

        Raises:
            ArtifactTooLargeError: There are more bytes than an artifact may have.
            ArtifactMismatchError: There are more than were declared.
        """
        for piece in pieces:
            self.size += len(piece)
            if self.size > self._max_bytes:
                raise ArtifactTooLargeError(self._max_bytes)
            if self._spec.size is not None and self.size > self._spec.size:
                raise ArtifactMismatchError.of("artifact.size", f"more than the declared {self._spec.size} bytes came.")
            self._hash.update(piece)
            if len(self.head) < HEAD_BYTES:
                self.head += piece[: HEAD_BYTES - len(self.head)]
            yield piece

    def sha256(self) -> str:
        """Compares what came with what was declared and returns its SHA-256 in hexadecimal.

        Raises:
            ArtifactMismatchError: Size or digest differ.
            InvalidArgumentError: Nothing came.
        """
        if self.size == 0:
            raise InvalidArgumentError.of("artifact", "must not be empty.")
        if self._spec.size is not None and self.size != self._spec.size:
            raise ArtifactMismatchError.of(
                "artifact.size", f"{self.size} bytes came, not the declared {self._spec.size}."
            )
        digest = self._hash.hexdigest()
        if self._spec.sha256 and digest != self._spec.sha256:
            raise ArtifactMismatchError.of(
                "artifact.sha256", f"the bytes that came have {digest}, not the declared {self._spec.sha256}."
            )
        return digest
