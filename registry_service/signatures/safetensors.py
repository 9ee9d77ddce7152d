"""Reads safetensors: the JSON header, entry by entry, and nothing of the data.

What the safetensors library refuses to open is a problem: it wants tensors that
cover all data without overlaps, of types that it knows. The header is never
parsed as a whole: a few million empty lists fit in one of some megabytes, and
would take hundreds of them in memory.
"""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from math import prod
from typing import Any

from registry_service.signatures import limits
from registry_service.signatures.builder import Findings, Siblings, tensor
from registry_service.signatures.file_reader import Budget, FormatError, LimitError, Reader, UnknownFormatError
from registry_service.signatures.quantization import PackedWeights

_LENGTH_BYTES = 8
_TENSOR_LENGTH = 4096
"""Most characters that describe one tensor."""
_SPACE = re.compile(r"[ \t\n\r]*")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
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
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
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


def read_safetensors(reader: Reader, budget: Budget, findings: Findings, siblings: Siblings) -> None:
    """Fills the findings.

    Raises:
        UnknownFormatError: It has no header.
        FormatError: It is damaged, or too large.
    """
    header = _read_header(reader)
    data_size = reader.size - reader.position
    data_start = reader.position

    def read_data(start: int, size: int) -> bytes | None:
        is_there = 0 <= start <= start + size <= data_size
        return reader.read_at(data_start + start, size) if is_there and reader.is_seekable else None

    packed = PackedWeights(read_data)
    try:
        ranges = _read_entries(_Cursor(header), budget, findings, packed)
    except (ValueError, RecursionError) as error:
        raise FormatError("Its header is damaged.") from error
    finally:
        for element_type, size in packed.weights(siblings.read):
            if element_type is None:
                findings.add_packed_weight()
            else:
                findings.add_weight(element_type, 8 * size)
    _check(ranges, data_size, findings)


def _read_header(reader: Reader) -> str:
    length = int.from_bytes(reader.take(_LENGTH_BYTES), "little") if reader.size >= _LENGTH_BYTES else 0
    if not reader.peek(limits.HEAD_BYTES).lstrip(b" \t\n\r").startswith(b"{"):
        raise UnknownFormatError("It is no safetensors.")
    if length > reader.size - _LENGTH_BYTES:
        raise FormatError(f"Its header should take {length} bytes, more than there are.")
    if length > limits.HEADER_BYTES:
        raise FormatError(f"Its header takes {length} bytes; up to {limits.HEADER_BYTES} are read.")
    try:
        return reader.take(length).decode()
    except UnicodeDecodeError as error:
        raise FormatError("Its header is no text.") from error


def _read_entries(
    cursor: "_Cursor", budget: Budget, findings: Findings, packed: PackedWeights
) -> list[tuple[int, int]]:
    """Adds the tensors and returns where the data of each begins and ends."""
    ranges = []
    names: set[int] = set()
    """Hashes of them."""
    for name in cursor.entries():
        budget.step()
        if hash(name) in names:
            findings.add_problem(f"It has two entries of the name {name[:100]!r}.")
        names.add(hash(name))
        if name == "__metadata__":
            for key in cursor.entries_or_null():
                budget.step()
                findings.add_metadata(key, cursor.text())
        else:
            ranges.append(_read_tensor(name, cursor.entry(), findings, packed))
    cursor.expect_end()
    if cursor.has_lone_surrogates:
        findings.add_problem("Its header has halves of surrogate pairs, which are no characters.")
    return ranges


def _read_tensor(name: str, entry: Any, findings: Findings, packed: PackedWeights) -> tuple[int, int]:
    """Adds a tensor and returns where its data begins and ends (`ValueError` where it is none)."""
    match entry:
        case {"dtype": str(element_type), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case [str(element_type), [*shape], [int(start), int(end)]]:
            pass
        case _:
            raise ValueError("no tensor")
    if not all(type(size) is int and 0 <= size < 2**64 for size in shape):
        raise ValueError("no shape")
    found = tensor(name, element_type, shape)
    bits = _TYPES.get(element_type)
    if bits is None:
        findings.add_problem(f"Its tensor {name[:100]!r} has the type {element_type[:100]!r}, which is not known.")
    elif bits * prod(shape) % 8:
        findings.add_problem(f"Its tensor {name[:100]!r} does not end at a byte.")
    elif bits * prod(shape) != 8 * (end - start):
        findings.add_problem(f"Its tensor {name[:100]!r} has {end - start} bytes of data, which is not its shape.")
    if not packed.takes(name, element_type, tuple(shape), start, end - start):
        findings.add_weight(element_type, 8 * (end - start))
    if len(findings.weights) < limits.TENSORS:
        findings.weights.append(found)
    return start, end


def _check(ranges: list[tuple[int, int]], data_size: int, findings: Findings) -> None:
    """Looks for tensors whose data is not there, or not theirs alone, and for data that is no tensor's."""
    if any(not 0 <= start <= end for start, end in ranges):
        findings.add_problem("Its tensors have impossible offsets.")
        return
    ranges.sort()
    ends = [0, *accumulate((end for _, end in ranges), max)]
    if any(start < end for end, (start, _) in zip(ends, ranges, strict=False)):
        findings.add_problem("Its tensors overlap.")
    hole = next(((end, start) for end, (start, _) in zip(ends, ranges, strict=False) if start > end), None)
    if hole is not None:
        findings.add_problem(f"Its data has a hole: the bytes {hole[0]} to {hole[1]} are no tensor's.")
    if ends[-1] > data_size:
        findings.add_problem(f"Its tensors go on behind its end: of their data it has {data_size} bytes.")
    elif ends[-1] < data_size:
        findings.add_problem(f"It goes on behind its last tensor, by {data_size - ends[-1]} bytes.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len(found := dict(pairs)):
        raise ValueError("a name twice")
    return found


def _no_number(_: str) -> float:
    raise ValueError("no number")


_ENTRY_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


class _Cursor:
    """A place in JSON text that moves forwards. What is not as expected is a ValueError."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.has_lone_surrogates = False

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
        text = str(found)
        self.has_lone_surrogates |= _LONE_SURROGATE.search(text) is not None
        return text

    def entries_or_null(self) -> Iterator[str]:
        """Yields the names of an object's entries, or takes a null and yields none."""
        self._next()
        if self._text.startswith("null", self._position):
            self._position += len("null")
            return
        yield from self.entries()

    def entry(self) -> Any:
        """Takes what describes a tensor."""
        self._next()
        piece = self._text[self._position : self._position + _TENSOR_LENGTH]
        try:
            found, end = _ENTRY_DECODER.raw_decode(piece)
        except ValueError as error:
            if len(piece) == _TENSOR_LENGTH:
                raise LimitError(
                    f"Its header is damaged, or describes a tensor in more than {_TENSOR_LENGTH:,} characters."
                ) from error
            raise
        self._position += end
        return found

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
