"""Reads GGUF: its metadata and the descriptions of its tensors, without their data.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md) for the layout, and
the `gguf` Python package for types and block sizes.
"""

import struct
from collections import Counter
from math import prod

from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, SignatureBuilder, clean, tensor
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError

_MAGIC = b"GGUF"
_VERSIONS = frozenset({2, 3})
_MAX_VERSION = 0xFFFF
"""Largest plausible version in either byte order. Text after the magic number reads as a far larger one."""
_ALIGNMENT = 32
"""Default alignment of the tensors' data, in bytes."""
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""`struct` formats of the numeric value types."""
_SHOWN_ELEMENTS = 16
"""Longest array whose elements are kept."""
_STRINGS_AT_ONCE = 64 * 1024
# Name, elements per block, and bytes per block.
_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}
_PRECISIONS = {"MXFP4": "f4", "NVFP4": "f4"} | {
    name: precision
    for name, _, _ in _TYPES.values()
    for beginnings, precision in ((("Q4_", "IQ4_"), "int4"), (("Q8_",), "int8"))
    if name.startswith(beginnings)
}
"""Precisions of types whose names do not say them."""
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
}
"""Names of `general.file_type`, the quantization of most tensors."""


def is_gguf(head: bytes) -> bool:
    """Return whether a file is GGUF, by its magic number and a plausible version if it is long enough for one."""
    version = head[len(_MAGIC) : len(_MAGIC) + 4]
    is_plausible = len(version) < 4 or any(
        int.from_bytes(version, order) <= _MAX_VERSION for order in ("little", "big")
    )
    return head.startswith(_MAGIC) and is_plausible


def read_gguf(reader: Reader, budget: Budget, builder: SignatureBuilder, _siblings: Siblings) -> None:
    """Read a GGUF file into the builder.

    Raises:
        UnknownFormatError: The magic number is missing, or an implausible version follows it.
        FormatError: The file is damaged, too large, or of an unsupported version.
    """
    if not is_gguf(reader.peek(len(_MAGIC) + 4)):
        raise UnknownFormatError("The file is not GGUF.")
    reader.skip(len(_MAGIC))
    _Walk(reader, budget, builder).file()


class _Walk:
    """The state of reading one file."""

    def __init__(self, reader: Reader, budget: Budget, builder: SignatureBuilder) -> None:
        self._reader = reader
        self._budget = budget
        self._builder = builder
        self._order = "<"
        self._numbers: dict[str, int] = {}
        """Metadata that is needed to read the rest."""

    def file(self) -> None:
        version = self._number("I")
        if version & 0xFFFF == 0:
            # The file was written for machines of the other byte order.
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        self._builder.add_metadata("version", str(version))
        if version not in _VERSIONS:
            raise FormatError(f"GGUF version {version} is not supported; supported are versions 2 and 3.")
        tensor_count, entry_count = self._number("Q"), self._number("Q")
        for _ in range(entry_count):
            self._budget.step()
            self._entry()
        file_type = self._numbers.get("general.file_type")
        if file_type is not None:
            self._builder.add_metadata("quantization", _FILE_TYPES.get(file_type, f"type {file_type}"))
        parts = self._numbers.get("split.count", 1)
        if parts > 1:
            self._builder.add_part_of(parts)
        self._tensors(tensor_count)

    def _entry(self) -> None:
        """Read one metadata entry."""
        key = self._string()
        value = self._value(self._number("I"), depth=0)
        if value is not None:
            self._builder.add_metadata(key, value)
            if key in {"general.alignment", "general.file_type", "split.count"} and value.isdecimal():
                self._numbers[key] = int(value)

    def _value(self, kind: int, depth: int) -> str | None:
        """Read a value and return it as text; None for a long array, which is skipped."""
        if kind == _STRING:
            return self._string()
        if kind == _BOOL:
            return "true" if self._number("B") else "false"
        if kind in _NUMBERS:
            (number,) = self._unpacked(_NUMBERS[kind])
            return f"{number:.7g}" if isinstance(number, float) else str(number)
        if kind != _ARRAY or depth > limits.DEPTH // 4:
            raise FormatError("A metadata value has an unknown type.")
        return self._array(self._number("I"), self._number("Q"), depth)

    def _array(self, kind: int, count: int, depth: int) -> str | None:
        if kind == _ARRAY:
            for _ in range(count):
                self._budget.step()
                self._value(kind, depth + 1)
            return None
        if count <= _SHOWN_ELEMENTS:
            return ", ".join(self._value(kind, depth + 1) or "" for _ in range(count))
        if kind == _STRING:
            self._skip_strings(count)
        elif kind in _NUMBERS:
            self._reader.skip(count * struct.calcsize(self._order + _NUMBERS[kind]))
        else:
            raise FormatError("A metadata value has an unknown type.")
        return None

    def _tensors(self, count: int) -> None:
        parameters = 0
        types: Counter[str] = Counter()
        names: set[int] = set()
        """Hashes of the names."""
        data_size = 0
        for _ in range(count):
            self._budget.step()
            name = self._string()
            dimensions = self._number("I")
            if dimensions > limits.DIMENSIONS:
                raise FormatError(f"A tensor has more than {limits.DIMENSIONS} dimensions.")
            shape = [self._number("Q") for _ in range(dimensions)]
            number, offset = self._number("I"), self._number("Q")
            kind, block, block_size = _TYPES.get(number, (f"type {number}", 1, 0))
            blocks, rest = divmod(prod(shape), block)
            if rest or (shape and shape[0] % block):
                self._builder.add_problem(
                    f"The tensor {name[:100]!r} is not a whole number of blocks of {block} elements."
                )
            if block_size == 0:
                self._builder.add_problem(f"Tensors have the unknown type {number}, so their size is unknown.")
            if hash(name) in names:
                self._builder.add_problem(f"Two tensors have the name {name[:100]!r}.")
            names.add(hash(name))
            data_size = max(data_size, offset + blocks * block_size)
            parameters += prod(shape)
            types[kind] += 1
            # A tensor of an unknown type has no known size, but still counts.
            self._builder.add_weight(_PRECISIONS.get(kind, kind), 8 * blocks * block_size or blocks)
            if len(self._builder.weights) < limits.TENSORS:
                self._builder.weights.append(tensor(name, kind, shape))
        self._builder.add_metadata("parameter_count", str(parameters))
        self._builder.add_metadata("tensor_types", ", ".join(f"{kind} {n}" for kind, n in types.most_common()))
        self._check_size(data_size)

    def _check_size(self, data_size: int) -> None:
        alignment = self._numbers.get("general.alignment", _ALIGNMENT)
        if alignment == 0 or alignment & (alignment - 1):
            raise FormatError(f"The alignment {alignment} is not a power of two.")
        start = -(-self._reader.position // alignment) * alignment
        if data_size and start + data_size > self._reader.size:
            found = max(self._reader.size - start, 0)
            self._builder.add_problem(f"The file is truncated: it has {found} of the {data_size} bytes of its tensors.")

    def _string(self) -> str:
        length = self._number("Q")
        # A character takes up to four bytes. One more than is kept lets `clean` mark the text as cut.
        kept = min(length, 4 * limits.TEXT_LENGTH + 4)
        text = self._reader.take(kept).decode(errors="replace")
        self._reader.skip(length - kept)
        return clean(text)

    def _skip_strings(self, count: int) -> None:
        """Skip the many strings of a vocabulary."""
        order = "little" if self._order == "<" else "big"
        while count:
            self._budget.check_time()
            piece = self._reader.peek(_STRINGS_AT_ONCE)
            at = 0
            while count and at + 8 <= len(piece):
                at += 8 + int.from_bytes(piece[at : at + 8], order)  # type: ignore[arg-type]
                count -= 1
            if at == 0:
                raise FormatError("The file is truncated.")
            self._reader.skip(at)

    def _number(self, kind: str) -> int:
        (number,) = self._unpacked(kind)
        return int(number)

    def _unpacked(self, kind: str) -> tuple[float | int, ...]:
        code = self._order + kind
        return struct.unpack(code, self._reader.take(struct.calcsize(code)))
