"""Read multipart/form-data (RFC 7578) while it arrives, without keeping a part in memory."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from registry_service.compat import answers
from registry_service.compat.answers import RestError

_MAX_PARTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class PartHeader:
    """The header of a part."""

    name: str
    file_name: str | None
    """None for a text. The name of a file may be empty."""
    content_type: str
    """Empty if the part has none."""


class _End:
    """The end of a part."""


_Event = PartHeader | memoryview | _End


class MultipartReader:
    """Reads the parts of a body in sequence.

    Args:
        chunks: The body.
        content_type: The media type of the body, with the boundary.

    Raises:
        RestError: 400, from every method, if the body is malformed or ends early.
    """

    def __init__(self, chunks: Iterator[bytes], content_type: str) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise RestError(answers.BROKEN_BODY)
        self._chunks = chunks
        self._events: deque[_Event] = deque()
        self._headers: dict[bytes, bytes] = {}
        self._header_name = b""
        self._header_value = b""
        self._parts = 0
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": lambda: self._events.append(_End()),
                    "on_end": self._on_end,
                },
            )
        except FormParserError:
            raise RestError(answers.BROKEN_BODY) from None

    def parts(self) -> Iterator[PartHeader]:
        """Yield the headers of the parts. Read the bytes of the current part with `data`; unread bytes are skipped."""
        while (event := self._next()) is not None:
            if isinstance(event, PartHeader):
                yield event
        if not self._ended:
            raise RestError(answers.BROKEN_BODY)

    def data(self) -> Iterator[bytes]:
        """Yield the bytes of the current part."""
        while (event := self._next()) is not None:
            if isinstance(event, memoryview):
                yield event  # type: ignore[misc]  # the consumers of bytes accept any buffer
            else:
                return
        raise RestError(answers.BROKEN_BODY)

    def text(self, most: int) -> bytes:
        """Return the bytes of the current part.

        Raises:
            ValueError: There are more than `most` bytes.
        """
        found = bytearray()
        for piece in self.data():
            found += piece
            if len(found) > most:
                raise ValueError(most)
        return bytes(found)

    def _next(self) -> _Event | None:
        """Return the next event, or None at the end of the body."""
        while not self._events:
            chunk = next(self._chunks, None)
            if chunk is None:
                return None
            try:
                self._parser.write(chunk)
            except FormParserError:
                raise RestError(answers.BROKEN_BODY) from None
        return self._events.popleft()

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise RestError(answers.detail(400, f"Too many parts. Maximum number of parts is {_MAX_PARTS}."))

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name")
        if name is None:
            raise RestError(answers.BROKEN_BODY)
        file_name = options.get(b"filename")
        self._events.append(
            PartHeader(
                name=name.decode(errors="replace"),
                file_name=None if file_name is None else file_name.decode(errors="replace"),
                content_type=self._headers.get(b"content-type", b"").decode(errors="replace"),
            )
        )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._ended = True
