"""Reads safetensors: the JSON header, entry by entry, and nothing of the data.

The header is never parsed as a whole: a few million empty lists fit in one of
some megabytes, and would take hundreds of them in memory.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

from registry_service.formats import limits
from registry_service.formats.findings import Findings, Sibling, tensor
from registry_service.formats.reading import Budget, FormatError, Reader, UnknownFormatError

_LENGTH_BYTES = 8
_TENSOR_LENGTH = 4096
"""Most characters that describe one tensor."""
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()
# Types and the bits of an element.
_TYPES = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}


def is_safetensors(head: bytes, size: int) -> bool:
    """Tells whether a file may be safetensors: the length of a header that fits, and where it begins."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and 2 <= length <= size - _LENGTH_BYTES


def read_safetensors(reader: Reader, budget: Budget, findings: Findings, _sibling: Sibling) -> None:
    """Fills the findings.

    Raises:
        UnknownFormatError: It has no header.
        FormatError: It is damaged, or too large.
    """
    length = int.from_bytes(reader.take(_LENGTH_BYTES), "little") if reader.size >= _LENGTH_BYTES else 0
    if reader.peek(1) != b"{":
        raise UnknownFormatError("It is no safetensors.")
    if length > reader.size - _LENGTH_BYTES:
        raise FormatError(f"Its header should take {length} bytes, more than there are.")
    if length > limits.HEADER_BYTES:
        raise FormatError(f"Its header takes {length} bytes; up to {limits.HEADER_BYTES} are read.")
    try:
        header = reader.take(length).decode()
    except UnicodeDecodeError as error:
        raise FormatError("Its header is no text.") from error
    data_size = reader.size - reader.position
    ranges: list[tuple[int, int]] = []
    cursor = _Cursor(header)
    try:
        for name in cursor.entries():
            budget.step()
            if name == "__metadata__":
                for key in cursor.entries():
                    budget.step()
                    findings.add_metadata(key, cursor.text())
            else:
                ranges.append(_read_tensor(name, cursor.flat_object(), findings))
        cursor.expect_end()
    except (ValueError, RecursionError) as error:
        raise FormatError("Its header is damaged.") from error
    finally:
        _check(ranges, data_size, findings)


def _read_tensor(name: str, entry: Any, findings: Findings) -> tuple[int, int]:
    """Adds a tensor and returns where its data begins and ends (`ValueError` where it is none)."""
    match entry:
        case {"dtype": str(element_type), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise ValueError("no tensor")
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError("no shape")
    found = tensor(name, element_type, shape)
    bits = _TYPES.get(element_type)
    if bits is not None and (bits * prod(shape) + 7) // 8 != end - start:
        findings.add_problem(f"Its tensor {name[:100]!r} has {end - start} bytes of data, which is not its shape.")
    findings.add_weight(element_type, 8 * (end - start))
    if len(findings.weights) < limits.TENSORS:
        findings.weights.append(found)
    return start, end


def _check(ranges: list[tuple[int, int]], data_size: int, findings: Findings) -> None:
    """Looks for tensors whose data is not there, or not theirs alone."""
    if any(not 0 <= start <= end for start, end in ranges):
        findings.add_problem("Its tensors have impossible offsets.")
    if any(end > data_size for _, end in ranges):
        findings.add_problem(f"Its tensors go on behind its end: of their data it has {data_size} bytes.")
    ranges.sort()
    if any(start < end for (_, end), (start, _) in pairwise(ranges)):
        findings.add_problem("Its tensors overlap.")


class _Cursor:
    """A place in JSON text that moves forwards. What is not as expected is a ValueError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0

    def entries(self) -> Iterator[str]:
        """Yields the names of an object's entries; the caller takes each value before the next."""
        self._expect("{")
        if self._next() == "}":
            self._position += 1
            return
        while True:
            name = self.text()
            self._expect(":")
            yield name
            if self._expect(",}") == "}":
                return

    def text(self) -> str:
        """Takes a string."""
        if self._next() != '"':
            raise ValueError("no string")
        found, self._position = _DECODER.raw_decode(self._text, self._position)
        return str(found)

    def flat_object(self) -> Any:
        """Takes an object without others inside."""
        self._next()
        end = self._text.find("}", self._position, self._position + _TENSOR_LENGTH) + 1
        if end == 0:
            raise ValueError("no object")
        start, self._position = self._position, end
        return json.loads(self._text[start:end])

    def expect_end(self) -> None:
        """Moves over the spaces that fill the header up."""
        if self._next():
            raise ValueError("more than an object")

    def _next(self) -> str:
        found = _SPACE.match(self._text, self._position)
        self._position = found.end() if found else self._position
        return self._text[self._position : self._position + 1]

    def _expect(self, tokens: str) -> str:
        token = self._next()
        if not token or token not in tokens:
            raise ValueError(f"no {tokens}")
        self._position += 1
        return token
