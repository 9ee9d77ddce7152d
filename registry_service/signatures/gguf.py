"""Reads GGUF: its metadata and what describes its tensors, and nothing of their data.

The layout is that of the GGUF specification (ggml-org/ggml, docs/gguf.md); types
and the sizes of their blocks are those of its Python package.
"""

import struct
from collections import Counter
from math import prod

from registry_service.signatures import limits
from registry_service.signatures.builder import Findings, Siblings, clean, tensor
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError

_MAGIC = b"GGUF"
_VERSIONS = frozenset({2, 3})
_MAX_VERSION = 0xFFFF
"""Largest plausible version in either byte order. What follows the magic in a text is far larger."""
_ALIGNMENT = 32
"""Of the data of tensors, where the metadata has no other."""
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
"""Types of values, as `struct` has them."""
_SHOWN_ELEMENTS = 16
"""Longest array that is kept."""
_STRINGS_AT_ONCE = 64 * 1024
# Name, elements of a block, and bytes of a block.
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
"""What a type counts as where it is not called after its precision."""
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
"""What `general.file_type` calls the quantization of most tensors."""


def is_gguf(head: bytes) -> bool:
    """Tell whether a file is GGUF, by its magic and a plausible version where it is long enough to have one."""
    version = head[len(_MAGIC) : len(_MAGIC) + 4]
    is_plausible = len(version) < 4 or any(
        int.from_bytes(version, order) <= _MAX_VERSION for order in ("little", "big")
    )
    return head.startswith(_MAGIC) and is_plausible


def read_gguf(reader: Reader, budget: Budget, findings: Findings, _siblings: Siblings) -> None:
    """Fills the findings.

    Raises:
        UnknownFormatError: It has not the signature, or an implausible version behind it.
        FormatError: It is damaged, too large, or of a version that is not read.
    """
    if not is_gguf(reader.peek(len(_MAGIC) + 4)):
        raise UnknownFormatError("It is no GGUF.")
    reader.skip(len(_MAGIC))
    _Walk(reader, budget, findings).file()


class _Walk:
    """One reading of a file."""

    def __init__(self, reader: Reader, budget: Budget, findings: Findings) -> None:
        self._reader = reader
        self._budget = budget
        self._findings = findings
        self._order = "<"
        self._numbers: dict[str, int] = {}
        """Metadata that says how the rest is to be read."""

    def file(self) -> None:
        version = self._number("I")
        if version & 0xFFFF == 0:
            # Written for machines of the other byte order.
            self._order = ">"
            version = int.from_bytes(version.to_bytes(4, "little"), "big")
        self._findings.add_metadata("version", str(version))
        if version not in _VERSIONS:
            raise FormatError(f"It has GGUF version {version}; versions 2 and 3 are read.")
        tensor_count, entry_count = self._number("Q"), self._number("Q")
        for _ in range(entry_count):
            self._budget.step()
            self._entry()
        file_type = self._numbers.get("general.file_type")
        if file_type is not None:
            self._findings.add_metadata("quantization", _FILE_TYPES.get(file_type, f"type {file_type}"))
        parts = self._numbers.get("split.count", 1)
        if parts > 1:
            self._findings.add_part_of(parts)
        self._tensors(tensor_count)

    def _entry(self) -> None:
        """Reads a key and its value."""
        key = self._string()
        value = self._value(self._number("I"), depth=0)
        if value is not None:
            self._findings.add_metadata(key, value)
            if key in {"general.alignment", "general.file_type", "split.count"} and value.isdecimal():
                self._numbers[key] = int(value)

    def _value(self, kind: int, depth: int) -> str | None:
        """Reads a value and returns its text; None of a long array, which is passed over."""
        if kind == _STRING:
            return self._string()
        if kind == _BOOL:
            return "true" if self._number("B") else "false"
        if kind in _NUMBERS:
            (number,) = self._unpacked(_NUMBERS[kind])
            return f"{number:.7g}" if isinstance(number, float) else str(number)
        if kind != _ARRAY or depth > limits.DEPTH // 4:
            raise FormatError("It has a value of an unknown kind.")
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
            raise FormatError("It has a value of an unknown kind.")
        return None

    def _tensors(self, count: int) -> None:
        parameters = 0
        types: Counter[str] = Counter()
        names: set[int] = set()
        """Hashes of them."""
        data_size = 0
        for _ in range(count):
            self._budget.step()
            name = self._string()
            dimensions = self._number("I")
            if dimensions > limits.DIMENSIONS:
                raise FormatError(f"It has a tensor of more than {limits.DIMENSIONS} dimensions.")
            shape = [self._number("Q") for _ in range(dimensions)]
            number, offset = self._number("I"), self._number("Q")
            kind, block, block_size = _TYPES.get(number, (f"type {number}", 1, 0))
            blocks, rest = divmod(prod(shape), block)
            if rest or (shape and shape[0] % block):
                self._findings.add_problem(
                    f"Its tensor {name[:100]!r} is no whole number of blocks of {block} elements."
                )
            if block_size == 0:
                self._findings.add_problem(f"It has tensors of the unknown type {number}, whose size is unknown too.")
            if hash(name) in names:
                self._findings.add_problem(f"It has two tensors of the name {name[:100]!r}.")
            names.add(hash(name))
            data_size = max(data_size, offset + blocks * block_size)
            parameters += prod(shape)
            types[kind] += 1
            # Of a type that isn't known, not even the size is; it counts all the same.
            self._findings.add_weight(_PRECISIONS.get(kind, kind), 8 * blocks * block_size or blocks)
            if len(self._findings.weights) < limits.TENSORS:
                self._findings.weights.append(tensor(name, kind, shape))
        self._findings.add_metadata("parameter_count", str(parameters))
        self._findings.add_metadata("tensor_types", ", ".join(f"{kind} {n}" for kind, n in types.most_common()))
        self._check_size(data_size)

    def _check_size(self, data_size: int) -> None:
        alignment = self._numbers.get("general.alignment", _ALIGNMENT)
        if alignment == 0 or alignment & (alignment - 1):
            raise FormatError(f"Its alignment is {alignment}, which is no power of two.")
        start = -(-self._reader.position // alignment) * alignment
        if data_size and start + data_size > self._reader.size:
            found = max(self._reader.size - start, 0)
            self._findings.add_problem(f"It is cut short: of the {data_size} bytes of its tensors it has {found}.")

    def _string(self) -> str:
        length = self._number("Q")
        # A character takes up to four bytes; one more than is kept shows that it was cut.
        kept = min(length, 4 * limits.TEXT_LENGTH + 4)
        text = self._reader.take(kept).decode(errors="replace")
        self._reader.skip(length - kept)
        return clean(text)

    def _skip_strings(self, count: int) -> None:
        """Passes over the many strings of a vocabulary."""
        order = "little" if self._order == "<" else "big"
        while count:
            self._budget.check_time()
            piece = self._reader.peek(_STRINGS_AT_ONCE)
            at = 0
            while count and at + 8 <= len(piece):
                at += 8 + int.from_bytes(piece[at : at + 8], order)  # type: ignore[arg-type]
                count -= 1
            if at == 0:
                raise FormatError("It is cut short.")
            self._reader.skip(at)

    def _number(self, kind: str) -> int:
        (number,) = self._unpacked(kind)
        return int(number)

    def _unpacked(self, kind: str) -> tuple[float | int, ...]:
        code = self._order + kind
        return struct.unpack(code, self._reader.take(struct.calcsize(code)))
