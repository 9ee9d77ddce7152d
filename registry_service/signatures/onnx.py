"""Reads ONNX: walks the wire format of its protobuf message, and skips weights and most small nodes.

Field numbers are those of onnx.proto. The walk goes from field to field and
never holds a whole message, which may have any size.
"""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from registry_service.domain.signature import Tensor
from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, SignatureBuilder, clean, tensor
from registry_service.signatures.file_reader import Budget, FormatError, LimitError, Reader, UnknownFormatError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# TensorProto.DataType: name, and bits per element.
_TYPES = {
    1: ("FLOAT", 32),
    2: ("UINT8", 8),
    3: ("INT8", 8),
    4: ("UINT16", 16),
    5: ("INT16", 16),
    6: ("INT32", 32),
    7: ("INT64", 64),
    8: ("STRING", 0),
    9: ("BOOL", 8),
    10: ("FLOAT16", 16),
    11: ("DOUBLE", 64),
    12: ("UINT32", 32),
    13: ("UINT64", 64),
    14: ("COMPLEX64", 64),
    15: ("COMPLEX128", 128),
    16: ("BFLOAT16", 16),
    17: ("FLOAT8E4M3FN", 8),
    18: ("FLOAT8E4M3FNUZ", 8),
    19: ("FLOAT8E5M2", 8),
    20: ("FLOAT8E5M2FNUZ", 8),
    21: ("UINT4", 4),
    22: ("INT4", 4),
    23: ("FLOAT4E2M1", 4),
    24: ("FLOAT8E8M0", 8),
    25: ("UINT2", 2),
    26: ("INT2", 2),
}
_SMALL_NODE = 256
"""Largest node, in bytes, that is skipped: its weights are too small to count."""
_PACKING_OPERATORS = ("MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QMoE")
"""Operators of ONNX Runtime whose weights are packed, several to a byte."""
_PACKING_INPUTS = 32
"""Most inputs of such an operator that are read. It has fewer."""
_PACKED_BITS = 4
"""Default bits per weight of such an operator."""
_OF_WEIGHTS = re.compile(f"location|{'|'.join(_PACKING_OPERATORS)}".encode())
"""Text in a small node that refers to weights: the key of external data, or such an operator."""
# Tags that may follow ir_version: producer_name to graph, opset_import, metadata_props.
_SECOND_TAGS = frozenset(b"\x12\x1a\x22\x28\x32\x3a\x42\x72")


def is_onnx(head: bytes) -> bool:
    """Return whether a file may be ONNX: all writers begin with a small ir_version."""
    return len(head) > 2 and head[0] == 0x08 and 0 < head[1] < 64 and head[2] in _SECOND_TAGS


def read_onnx(reader: Reader, budget: Budget, builder: SignatureBuilder, siblings: Siblings) -> None:
    """Read an ONNX file into the builder.

    Raises:
        UnknownFormatError: The file has no graph.
        FormatError: The file is damaged or too large.
    """
    walk = _Walk(reader, budget, builder)
    try:
        walk.model()
    except LimitError:
        raise
    except FormatError as error:
        if not (walk.has_graph and (builder.producer or builder.inputs or builder.outputs or builder.weight_count)):
            raise UnknownFormatError("The file is not ONNX.") from error
        raise
    finally:
        walk.report(siblings)
    if not walk.has_graph:
        raise UnknownFormatError("The file is not ONNX.")


@dataclass(slots=True)
class _Weight:
    """The relevant fields of a TensorProto."""

    name: str = ""
    type: int = 0
    elements: int = 1
    dimensions: int = 0
    raw_size: int | None = None
    is_external: bool = False
    external: dict[str, str] = field(default_factory=dict)


class _Walk:
    """The state of reading one model."""

    def __init__(self, reader: Reader, budget: Budget, builder: SignatureBuilder) -> None:
        self._reader = reader
        self._budget = budget
        self._builder = builder
        self._weight_names: set[int] = set()
        """Hashes of the names."""
        self._packed: dict[int, int] = {}
        """Bits per weight of packed weights, by the hashes of their names."""
        self._external: dict[str, int] = {}
        """End of the weights in each external file, in bytes."""
        self.has_graph = False

    def report(self, siblings: Siblings) -> None:
        """Remove weights from the inputs, and check the files of external weights."""
        # Before IR version 4, weights had to be inputs as well.
        self._builder.inputs = [t for t in self._builder.inputs if hash(t.name) not in self._weight_names]
        for location, end in self._external.items():
            if not location:
                self._builder.add_problem("The weights are in another file, but the model does not name it.")
                continue
            if location.startswith("/") or posixpath.normpath(location).startswith(".."):
                self._builder.add_problem(
                    f"The weights are in the file {location}, which is outside the model's folder."
                )
                continue
            size = siblings.size(location)
            if size is None:
                self._builder.add_problem(f"The weights are in the file {location}, which is missing.")
            elif size < end:
                self._builder.add_problem(f"The weights need {end} bytes of the file {location}, which has {size}.")

    def model(self) -> None:
        """Read a ModelProto."""
        producer = version = ""
        for number, wire, value in self._fields(self._reader.size):
            match number, wire:
                case 1, 0:
                    self._builder.add_metadata("ir_version", str(value))
                case 2, 2:
                    producer = self._text(value)
                case 3, 2:
                    version = self._text(value)
                case 4, 2:
                    self._add_metadata("domain", self._text(value))
                case 5, 0:
                    self._add_metadata("model_version", str(_signed(value)) if value else "")
                case ((7 | 20 | 25), 2):
                    self._part(number, value)
                case 8, 2:
                    self._opset(value)
                case 14, 2:
                    self._add_metadata(*self._pair(value))
                case _:
                    pass
            self._builder.producer = f"{producer} {version}".strip()

    def _add_metadata(self, name: str, text: str) -> None:
        if text:
            self._builder.add_metadata(name, text)

    def _graph(self, end: int, depth: int) -> None:
        if depth > limits.DEPTH // 4:
            raise FormatError("Graphs are nested too deeply.")
        for number, wire, value in self._fields(end):
            match number, wire:
                case 1, 2:
                    self._node(value, depth)
                case 5, 2:
                    self._add(self._tensor(value), is_named=depth == 0)
                case 15, 2:
                    self._sparse(value, is_named=depth == 0)
                case 11, 2 if depth == 0:
                    self._add_value_info(self._builder.inputs, value)
                case 12, 2 if depth == 0:
                    self._add_value_info(self._builder.outputs, value)
                case _:
                    pass

    def _part(self, part: int, end: int) -> None:
        """Read a message that may hold weights: GraphProto (7), TrainingInfoProto (20) or FunctionProto (25)."""
        if part == 7:
            self.has_graph = True
            self._graph(end, depth=0)
            return
        for number, wire, value in self._fields(end):
            match part, number, wire:
                case 20, (1 | 2), 2:
                    self._graph(value, depth=1)
                case 25, 7, 2:
                    self._node(value, depth=1)
                case 25, 11, 2:
                    self._attribute(value, depth=1)
                case _:
                    pass

    def _sparse(self, end: int, *, is_named: bool) -> None:
        for number, wire, value in self._fields(end):
            if wire == _BYTES and number == 1:
                self._add(self._tensor(value), is_named=is_named)
            elif wire == _BYTES and number == 2:
                # Indices are not weights, but may be in an external file too.
                self._check_data(self._tensor(value))

    def _node(self, end: int, depth: int) -> None:
        """Find the weights in a node's attributes, and its inputs that are packed weights."""
        size = end - self._reader.position
        if size <= _SMALL_NODE and not _OF_WEIGHTS.search(self._reader.peek(size)):
            return
        inputs: list[int] = []
        """Hashes of the names."""
        operator, bits = "", _PACKED_BITS
        for number, wire, value in self._fields(end):
            if wire != _BYTES:
                continue
            if number == 1 and len(inputs) < _PACKING_INPUTS:
                inputs.append(hash(self._text(value)))
            elif number == 4:
                operator = self._text(value)
            elif number == 5:
                attribute_name, integer = self._attribute(value, depth)
                if attribute_name in {"bits", "expert_weight_bits"}:
                    bits = integer
        if operator in _PACKING_OPERATORS and 0 < bits < 8 and len(self._packed) < limits.NAMES:
            self._packed.update(dict.fromkeys(inputs, bits))

    def _attribute(self, end: int, depth: int) -> tuple[str, int]:
        """Find the weights in an attribute: constants, and the graphs of branches and loops.

        Returns:
            The name of the attribute, and its value if that is an integer, else 0.
        """
        attribute_name, integer = "", 0
        for number, wire, value in self._fields(end):
            match number, wire:
                case 1, 2:
                    attribute_name = self._text(value)
                case 3, 0:
                    integer = _signed(value)
                case ((5 | 10), 2):
                    self._add(self._tensor(value), is_named=False)
                case ((6 | 11), 2):
                    self._graph(value, depth + 1)
                case ((22 | 23), 2):
                    self._sparse(value, is_named=False)
                case _:
                    pass
        return attribute_name, integer

    def _add(self, weight: _Weight, *, is_named: bool) -> None:
        if is_named and len(self._weight_names) < limits.NAMES:
            self._weight_names.add(hash(weight.name))
        name, bits = _type_of(weight)
        packed = self._packed.get(hash(weight.name)) if name in {"UINT8", "INT8"} and weight.name else None
        # A weight of an unknown type has no known size, but still counts.
        self._builder.add_weight(f"int{packed}" if packed else name, (bits or 1) * weight.elements)
        self._check_data(weight)

    def _check_data(self, weight: _Weight) -> None:
        """Check that the data of a tensor exists and has the size of its shape."""
        _, bits = _type_of(weight)
        size = (bits * weight.elements + 7) // 8
        found = weight.raw_size
        if weight.is_external:
            found = _number(weight.external.get("length", "")) or None
            self._add_external(weight, found or size)
        if found is not None and bits and found != size:
            self._builder.add_problem(
                f"The weight {weight.name[:100]!r} has {found} bytes of data, but its shape needs {size}."
            )

    def _add_external(self, weight: _Weight, size: int) -> None:
        location = weight.external.get("location", "")
        end = _number(weight.external.get("offset", "")) + size
        if location in self._external or len(self._external) < limits.NAMES:
            self._external[location] = max(self._external.get(location, 0), end)

    def _tensor(self, end: int) -> _Weight:
        weight = _Weight()
        for number, wire, value in self._fields(end):
            match number, wire:
                case 1, 0:
                    self._add_dimension(weight, value)
                case 1, 2:
                    self._add_packed_dimensions(weight, value)
                case 2, 0:
                    weight.type = value
                case 8, 2:
                    weight.name = self._text(value)
                case 9, 2:
                    weight.raw_size = value - self._reader.position
                case 13, 2:
                    weight.is_external = True
                    name, text = self._pair(value)
                    if name in {"location", "offset", "length"}:
                        weight.external[name] = text
                case 14, 0:
                    weight.is_external |= value == 1
                case _:
                    pass
        return weight

    def _add_packed_dimensions(self, weight: _Weight, end: int) -> None:
        while self._reader.position < end:
            self._add_dimension(weight, self._reader.varint())
        if self._reader.position != end:
            raise FormatError("A field is longer than its message.")

    def _add_dimension(self, weight: _Weight, size: int) -> None:
        weight.dimensions += 1
        if weight.dimensions > limits.DIMENSIONS:
            raise FormatError(f"A tensor has more than {limits.DIMENSIONS} dimensions.")
        weight.elements *= max(_signed(size), 0)

    def _add_value_info(self, found: list[Tensor], end: int) -> None:
        # Many inputs may turn out to be weights, so more than TENSORS are kept for now.
        if len(found) >= 4 * limits.TENSORS:
            return
        name, element_type = "", ""
        shape: list[int | str] | None = None
        for number, wire, value in self._fields(end):
            if number == 1 and wire == _BYTES:
                name = self._text(value)
            elif number == 2 and wire == _BYTES:
                element_type, shape = self._type(value, depth=0)
        found.append(tensor(name, element_type, shape))

    def _type(self, end: int, depth: int) -> tuple[str, list[int | str] | None]:
        if depth > limits.DEPTH // 4:
            raise FormatError("Types are nested too deeply.")
        for number, wire, value in self._fields(end):
            if wire != _BYTES:
                continue
            if number in {1, 8}:
                return self._tensor_type(value)
            if number in {4, 9}:
                inner = ""
                for inner_number, _, inner_end in self._fields(value):
                    if inner_number == 1:
                        inner, shape = self._type(inner_end, depth + 1)
                        if number == 9:
                            return f"optional({inner})", shape
                return f"{'sequence' if number == 4 else 'optional'}({inner})", None
            if number == 5:
                return "map", None
        return "", None

    def _tensor_type(self, end: int) -> tuple[str, list[int | str] | None]:
        element_type = ""
        shape: list[int | str] | None = None
        for number, wire, value in self._fields(end):
            if number == 1 and wire == _VARINT:
                element_type = _TYPES.get(value, (f"type {value}", 0))[0]
            elif number == 2 and wire == _BYTES:
                shape = []
                for inner, _, dimension_end in self._fields(value):
                    if inner == 1:
                        shape.append(self._dimension(dimension_end))
                        if len(shape) > limits.DIMENSIONS:
                            raise FormatError(f"A tensor has more than {limits.DIMENSIONS} dimensions.")
        return element_type, shape

    def _dimension(self, end: int) -> int | str:
        size: int | str = "?"
        for number, wire, value in self._fields(end):
            if number == 1 and wire == _VARINT:
                size = _signed(value) if _signed(value) >= 0 else "?"
            elif number == 2 and wire == _BYTES:
                size = self._text(value) or "?"
        return size

    def _opset(self, end: int) -> None:
        domain, version = "", 0
        for number, wire, value in self._fields(end):
            if number == 1 and wire == _BYTES:
                domain = self._text(value)
            elif number == 2 and wire == _VARINT:
                version = _signed(value)
        self._builder.add_opset(domain or "ai.onnx", version)

    def _pair(self, end: int) -> tuple[str, str]:
        """Read a StringStringEntryProto."""
        key = text = ""
        for number, wire, value in self._fields(end):
            if wire == _BYTES and number == 1:
                key = self._text(value)
            elif wire == _BYTES and number == 2:
                text = self._text(value)
        return key, text

    def _text(self, end: int) -> str:
        length = end - self._reader.position
        # A character takes up to four bytes. One more than is kept lets `clean` mark the text as cut.
        return clean(self._reader.take(min(length, 4 * limits.TEXT_LENGTH + 4)).decode(errors="replace"))

    def _fields(self, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield number, wire type and value of each field of a message. The value of a bytes field is its end.

        The caller may read within a bytes field; the rest of it is skipped. A truncated bytes field is yielded
        before the error is raised.
        """
        reader = self._reader
        while reader.position < end:
            self._budget.step()
            tag = reader.varint()
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                yield number, wire, reader.varint()
            elif wire == _BYTES:
                length = reader.varint()
                stop = min(reader.position + length, end)
                is_whole = reader.position + length <= end
                yield number, wire, stop
                reader.skip(stop - reader.position)
                if not is_whole:
                    raise FormatError("The file is truncated.")
            elif wire in {_FIXED64, _FIXED32}:
                reader.skip(8 if wire == _FIXED64 else 4)
            else:
                raise FormatError("A field has an unknown wire type.")
        if reader.position != end:
            raise FormatError("A field is longer than its message.")


def _type_of(weight: _Weight) -> tuple[str, int]:
    """Return the name of a weight's type and its bits per element, 0 if unknown."""
    return _TYPES.get(weight.type, (f"type {weight.type}", 0))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _number(text: str) -> int:
    # No file is as large as a number of more digits.
    return int(text[:20]) if text.isascii() and text.isdecimal() else 0
