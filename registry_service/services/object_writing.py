"""Writes a stream of bytes as one object, in flat memory."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from registry_service.domain.artifact_store import ArtifactStore, Part
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


def write_object(store: ArtifactStore, key: str, pieces: Iterable[bytes]) -> None:
    """Stores the pieces, joined, under a key: durable and visible on return.

    One part is sent while the next one arrives; no more than two are held. An
    exception, of the store or of `pieces`, may leave bytes behind under the
    key: `ArtifactStore.delete` removes them.
    """
    buffer = bytearray()
    parts: list[Part] = []
    handle: str | None = None
    sending: Future[Part] | None = None
    with ExitStack() as stack:
        sender: ThreadPoolExecutor | None = None
        for piece in pieces:
            buffer += piece
            while len(buffer) > store.part_size:
                if handle is None or sender is None:
                    handle = store.begin(key)
                    sender = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="part-sender"))
                if sending is not None:
                    parts.append(sending.result())
                data = bytes(memoryview(buffer)[: store.part_size])
                del buffer[: store.part_size]
                number, offset = len(parts) + 1, len(parts) * store.part_size
                sending = sender.submit(store.write_part, key, handle, number=number, offset=offset, data=data)
        if handle is None or sending is None:
            store.put(key, bytes(buffer))
            return
        parts.append(sending.result())
        offset = len(parts) * store.part_size
        parts.append(store.write_part(key, handle, number=len(parts) + 1, offset=offset, data=bytes(buffer)))
        store.finish(key, handle, parts)
