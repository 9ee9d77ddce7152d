"""Reads safetensors: the JSON header, entry by entry, without the data.

A file that the safetensors library refuses to open has a problem: its tensors
must have known types and cover all data without overlaps. The header is never
parsed as a whole: a few megabytes can hold millions of empty lists, which would
take hundreds of megabytes in memory.
"""

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from math import prod
from typing import Any

from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, SignatureBuilder, tensor
from registry_service.signatures.file_reader import Budget, FormatError, LimitError, Reader, UnknownFormatError
from registry_service.signatures.quantization import PackedWeights

_LENGTH_BYTES = 8
_TENSOR_LENGTH = 4096
"""Most characters that describe one tensor."""
_SPACE = re.compile(r"[ \t\n\r]*")
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_DECODER = json.JSONDecoder()
# Bits per element, by type.
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
    """Return whether a file may be safetensors: its header has a plausible length and begins with `{`."""
    length = int.from_bytes(head[:_LENGTH_BYTES], "little")
    return head[_LENGTH_BYTES : _LENGTH_BYTES + 1] == b"{" and 2 <= length <= size - _LENGTH_BYTES


def read_safetensors(reader: Reader, budget: Budget, builder: SignatureBuilder, siblings: Siblings) -> None:
    """Read a safetensors file into the builder.

    Raises:
        UnknownFormatError: The file has no header.
        FormatError: The file is damaged or too large.
    """
    header = _read_header(reader)
    data_size = reader.size - reader.position
    data_start = reader.position

    def read_data(start: int, size: int) -> bytes | None:
        is_there = 0 <= start <= start + size <= data_size
        return reader.read_at(data_start + start, size) if is_there and reader.is_seekable else None

    packed = PackedWeights(read_data)
    try:
        ranges = _read_entries(_Cursor(header), budget, builder, packed)
    except (ValueError, RecursionError) as error:
        raise FormatError("The header is damaged.") from error
    finally:
        for element_type, size in packed.weights(siblings.read):
            if element_type is None:
                builder.add_packed_weight()
            else:
                builder.add_weight(element_type, 8 * size)
    _check(ranges, data_size, builder)


def _read_header(reader: Reader) -> str:
    length = int.from_bytes(reader.take(_LENGTH_BYTES), "little") if reader.size >= _LENGTH_BYTES else 0
    if not reader.peek(limits.HEAD_BYTES).lstrip(b" \t\n\r").startswith(b"{"):
        raise UnknownFormatError("The file is not safetensors.")
    if length > reader.size - _LENGTH_BYTES:
        raise FormatError(f"The header length is {length} bytes, more than the file has.")
    if length > limits.HEADER_BYTES:
        raise FormatError(f"The header has {length} bytes; the limit is {limits.HEADER_BYTES}.")
    try:
        return reader.take(length).decode()
    except UnicodeDecodeError as error:
        raise FormatError("The header is not UTF-8 text.") from error


def _read_entries(
    cursor: "_Cursor", budget: Budget, builder: SignatureBuilder, packed: PackedWeights
) -> list[tuple[int, int]]:
    """Add the tensors, and return where the data of each begins and ends."""
    ranges = []
    names: set[int] = set()
    """Hashes of the names."""
    for name in cursor.entries():
        budget.step()
        if hash(name) in names:
            builder.add_problem(f"Two header entries have the name {name[:100]!r}.")
        names.add(hash(name))
        if name == "__metadata__":
            for key in cursor.entries_or_null():
                budget.step()
                builder.add_metadata(key, cursor.text())
        else:
            ranges.append(_read_tensor(name, cursor.entry(), builder, packed))
    cursor.check_end()
    if cursor.has_lone_surrogates:
        builder.add_problem("The header has lone surrogates, which are not characters.")
    return ranges


def _read_tensor(name: str, entry: Any, builder: SignatureBuilder, packed: PackedWeights) -> tuple[int, int]:
    """Add a tensor, and return where its data begins and ends. Raises ValueError if the entry describes no tensor."""
    match entry:
        case {"dtype": str(element_type), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case [str(element_type), [*shape], [int(start), int(end)]]:
            pass
        case _:
            raise ValueError("not a tensor")
    if not all(type(size) is int and 0 <= size < 2**64 for size in shape):
        raise ValueError("not a shape")
    found = tensor(name, element_type, shape)
    bits = _TYPES.get(element_type)
    if bits is None:
        builder.add_problem(f"The tensor {name[:100]!r} has the unknown type {element_type[:100]!r}.")
    elif bits * prod(shape) % 8:
        builder.add_problem(f"The tensor {name[:100]!r} does not end on a byte boundary.")
    elif bits * prod(shape) != 8 * (end - start):
        builder.add_problem(
            f"The tensor {name[:100]!r} has {end - start} bytes of data, which does not match its shape."
        )
    if not packed.takes(name, element_type, tuple(shape), start, end - start):
        builder.add_weight(element_type, 8 * (end - start))
    if len(builder.weights) < limits.TENSORS:
        builder.weights.append(found)
    return start, end


def _check(ranges: list[tuple[int, int]], data_size: int, builder: SignatureBuilder) -> None:
    """Check that the tensors cover all data without overlaps."""
    if any(not 0 <= start <= end for start, end in ranges):
        builder.add_problem("Tensors have invalid offsets.")
        return
    ranges.sort()
    ends = [0, *accumulate((end for _, end in ranges), max)]
    if any(start < end for end, (start, _) in zip(ends, ranges, strict=False)):
        builder.add_problem("Tensors overlap.")
    hole = next(((end, start) for end, (start, _) in zip(ends, ranges, strict=False) if start > end), None)
    if hole is not None:
        builder.add_problem(f"The data has a gap: bytes {hole[0]} to {hole[1]} belong to no tensor.")
    if ends[-1] > data_size:
        builder.add_problem(f"Tensors extend beyond the end of the file, which has {data_size} bytes of data.")
    elif ends[-1] < data_size:
        builder.add_problem(f"{data_size - ends[-1]} bytes follow the last tensor.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) != len(found := dict(pairs)):
        raise ValueError("a duplicate name")
    return found


def _no_number(_: str) -> float:
    raise ValueError("not a number")


_ENTRY_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


class _Cursor:
    """A position in JSON text that moves forwards. Methods raise ValueError for unexpected text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.has_lone_surrogates = False

    def entries(self) -> Iterator[str]:
        """Yield the names of an object's entries. The caller reads each value before the next name."""
        self._take_token("{")
        if self._next() == "}":
            self._position += 1
            return
        while True:
            name = self.text()
            self._take_token(":")
            yield name
            if self._take_token(",}") == "}":
                return

    def text(self) -> str:
        """Read a string."""
        if self._next() != '"':
            raise ValueError("not a string")
        found, self._position = _DECODER.raw_decode(self._text, self._position)
        text = str(found)
        self.has_lone_surrogates |= _LONE_SURROGATE.search(text) is not None
        return text

    def entries_or_null(self) -> Iterator[str]:
        """Yield the names of an object's entries; none for null."""
        self._next()
        if self._text.startswith("null", self._position):
            self._position += len("null")
            return
        yield from self.entries()

    def entry(self) -> Any:
        """Read the value that describes a tensor."""
        self._next()
        piece = self._text[self._position : self._position + _TENSOR_LENGTH]
        try:
            found, end = _ENTRY_DECODER.raw_decode(piece)
        except ValueError as error:
            if len(piece) == _TENSOR_LENGTH:
                raise LimitError(
                    f"The header is damaged, or describes a tensor in more than {_TENSOR_LENGTH:,} characters."
                ) from error
            raise
        self._position += end
        return found

    def check_end(self) -> None:
        """Check that only padding follows."""
        if self._next():
            raise ValueError("text after the object")

    def _next(self) -> str:
        found = _SPACE.match(self._text, self._position)
        self._position = found.end() if found else self._position
        return self._text[self._position : self._position + 1]

    def _take_token(self, tokens: str) -> str:
        token = self._next()
        if not token or token not in tokens:
            raise ValueError(f"expected one of {tokens}")
        self._position += 1
        return token
