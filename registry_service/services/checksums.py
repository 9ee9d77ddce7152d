"""Size and SHA-256 of an artifact, computed while its bytes stream through."""

import hashlib
from collections.abc import Iterable, Iterator

from registry_service.domain.errors import ArtifactMismatchError, ArtifactTooLargeError, InvalidArgumentError
from registry_service.domain.models import ArtifactSpec
from registry_service.services.signature_reading import HEAD_BYTES


class RunningChecksum:
    """Size, SHA-256 and first bytes of a stream."""

    def __init__(self) -> None:
        self.size = 0
        self.head = b""
        """The first HEAD_BYTES, for `signature_reading`."""
        self._hash = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Add the next bytes."""
        self.size += len(piece)
        self._hash.update(piece)
        if len(self.head) < HEAD_BYTES:
            self.head += piece[: HEAD_BYTES - len(self.head)]

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes so far, in hexadecimal."""
        return self._hash.hexdigest()

    def copy(self) -> "RunningChecksum":
        """Return a copy that continues from the same state."""
        other = RunningChecksum()
        other.size, other.head, other._hash = self.size, self.head, self._hash.copy()
        return other


class ChecksumVerifier:
    """Verifies a stream against the declared size and SHA-256 of an artifact. Stops a stream that is too long early."""

    def __init__(self, spec: ArtifactSpec, max_bytes: int) -> None:
        self.checksum = RunningChecksum()
        self._spec = spec
        self._max_bytes = max_bytes

    def verified(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the pieces of the stream.

        Raises:
            ArtifactTooLargeError: The stream exceeds the limit for artifacts.
            ArtifactMismatchError: The stream exceeds the declared size.
        """
        for piece in pieces:
            size = self.checksum.size + len(piece)
            if size > self._max_bytes:
                raise ArtifactTooLargeError(self._max_bytes)
            if self._spec.size is not None and size > self._spec.size:
                raise ArtifactMismatchError.of(
                    "artifact.size_bytes", f"is {self._spec.size}, but more bytes were received."
                )
            self.checksum.add(piece)
            yield piece

    def sha256(self) -> str:
        """Verify the whole stream and return its SHA-256 in hexadecimal.

        Raises:
            ArtifactMismatchError: The size or the SHA-256 differs from the declared one.
            InvalidArgumentError: The stream was empty.
        """
        if self.checksum.size == 0:
            raise InvalidArgumentError.of("artifact", "must not be empty.")
        if self._spec.size is not None and self.checksum.size != self._spec.size:
            raise ArtifactMismatchError.of(
                "artifact.size_bytes", f"is {self._spec.size}, but {self.checksum.size} bytes were received."
            )
        digest = self.checksum.sha256()
        if self._spec.sha256 and digest != self._spec.sha256:
            raise ArtifactMismatchError.of(
                "artifact.sha256", f"does not match the received bytes, which have the SHA-256 {digest}."
            )
        return digest
