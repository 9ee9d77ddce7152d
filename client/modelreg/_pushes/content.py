"""The content of a push: a source whose bytes are hashed once, in the order in which they are read. It blocks."""

from __future__ import annotations

import hashlib

from modelreg._pushes.sources import Source
from modelreg._wire.chunks import CHUNK_BYTES, ChunkMessages


class Content:
    """A source with its SHA-256.

    Args:
        source: The source.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._digest = hashlib.sha256()
        self._hashed = 0
        self._position = 0
        self._is_at_end = False

    @property
    def size_bytes(self) -> int | None:
        """The size in bytes, or None as long as it is unknown."""
        if self.source.size_bytes is not None:
            return self.source.size_bytes
        return self._hashed if self._is_at_end else None

    @property
    def position(self) -> int:
        """The offset of the next chunk."""
        return self._position

    def seek(self, offset: int) -> None:
        """Make an offset that of the next chunk, and hash what is before it unless that was done.

        Raises:
            SourceChanged: The source has fewer bytes, or was changed.
        """
        self.source.prepare()
        if offset != self._position:
            self._move(min(offset, self._hashed))
        while self._position < offset:
            if not self._read(min(CHUNK_BYTES, offset - self._position)):
                break

    def message(self, messages: ChunkMessages) -> bytes:
        """Return the message of the next chunk, of at most 1 MiB. Empty at the end."""
        return messages.read(self._read_into)

    def beginning(self, limit: int) -> list[bytes] | None:
        """Return the chunks of the whole content, or None if it is larger than a limit, and go back to the start."""
        size = self.source.size_bytes
        chunks: list[bytes] = []
        if size is None or size <= limit:
            read = 0
            while read <= limit:
                data = self._read(CHUNK_BYTES)
                if not data:
                    return chunks
                chunks.append(data)
                read += len(data)
            self._move(0)
        return None

    def sha256(self) -> str:
        """Return the SHA-256 of the whole content in hexadecimal, and read what was not read yet.

        Raises:
            SourceChanged: The source was changed since it was opened.
        """
        if self.size_bytes is None or self._hashed < self.size_bytes:
            if self._position != self._hashed:
                self._move(self._hashed)
            while self._read(CHUNK_BYTES):
                self.source.forget(self._position)
        self.source.check()
        return self._digest.hexdigest()

    def _move(self, offset: int) -> None:
        self.source.seek(offset)
        self._position = offset

    def _read(self, size: int) -> bytes:
        data = self.source.read(size)
        self._note(memoryview(data))
        return data

    def _read_into(self, buffer: memoryview) -> int:
        size = self.source.read_into(buffer)
        self._note(buffer[:size])
        return size

    def _note(self, data: memoryview) -> None:
        """Hash what was read, as far as it was not read before."""
        start, self._position = self._position, self._position + len(data)
        if self._position > self._hashed:
            self._digest.update(data[self._hashed - start :])
            self._hashed = self._position
        elif not data:
            self._is_at_end = True
