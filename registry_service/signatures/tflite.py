"""Reads TensorFlow Lite (LiteRT): walks the tables of its flatbuffer, and skips the weights.

The numbers of fields, types and operators are those of TensorFlow's schema.fbs. A
weight is a tensor that is neither an input nor the output of an operator. So the
buffers, which may be anywhere in the file, are not read.
"""

import heapq
import struct
from collections import Counter
from collections.abc import Iterator

from registry_service.domain.signature import Tensor
from registry_service.signatures import limits
from registry_service.signatures.builder import Siblings, SignatureBuilder, clean, tensor
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError

_IDENTIFIER = b"TFL3"
_IDENTIFIER_OFFSET = 4
# Name, and bits per element.
_TYPES = (
    ("FLOAT32", 32),
    ("FLOAT16", 16),
    ("INT32", 32),
    ("UINT8", 8),
    ("INT64", 64),
    ("STRING", 0),
    ("BOOL", 8),
    ("INT16", 16),
    ("COMPLEX64", 64),
    ("INT8", 8),
    ("FLOAT64", 64),
    ("COMPLEX128", 128),
    ("UINT64", 64),
    ("RESOURCE", 0),
    ("VARIANT", 0),
    ("UINT32", 32),
    ("UINT16", 16),
    ("INT4", 4),
    ("BFLOAT16", 16),
    ("INT2", 2),
    ("UINT4", 4),
)
_LAST_BUFFERS = 4
_CUSTOM = 32
"""The operator whose name is in `custom_code`."""
_OPERATORS = (  # noqa: SIM905 - as a list it would take 200 lines
    "ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP FLOOR "
    "FULLY_CONNECTED HASHTABLE_LOOKUP L2_NORMALIZATION L2_POOL_2D LOCAL_RESPONSE_NORMALIZATION LOGISTIC "
    "LSH_PROJECTION LSTM MAX_POOL_2D MUL RELU RELU_N1_TO_1 RELU6 RESHAPE RESIZE_BILINEAR RNN SOFTMAX SPACE_TO_DEPTH "
    "SVDF TANH CONCAT_EMBEDDINGS SKIP_GRAM CALL CUSTOM EMBEDDING_LOOKUP_SPARSE PAD UNIDIRECTIONAL_SEQUENCE_RNN "
    "GATHER BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND TRANSPOSE MEAN SUB DIV SQUEEZE UNIDIRECTIONAL_SEQUENCE_LSTM "
    "STRIDED_SLICE BIDIRECTIONAL_SEQUENCE_RNN EXP TOPK_V2 SPLIT LOG_SOFTMAX DELEGATE BIDIRECTIONAL_SEQUENCE_LSTM "
    "CAST PRELU MAXIMUM ARG_MAX MINIMUM LESS NEG PADV2 GREATER GREATER_EQUAL LESS_EQUAL SELECT SLICE SIN "
    "TRANSPOSE_CONV SPARSE_TO_DENSE TILE EXPAND_DIMS EQUAL NOT_EQUAL LOG SUM SQRT RSQRT SHAPE POW ARG_MIN "
    "FAKE_QUANT REDUCE_PROD REDUCE_MAX PACK LOGICAL_OR ONE_HOT LOGICAL_AND LOGICAL_NOT UNPACK REDUCE_MIN FLOOR_DIV "
    "REDUCE_ANY SQUARE ZEROS_LIKE FILL FLOOR_MOD RANGE RESIZE_NEAREST_NEIGHBOR LEAKY_RELU SQUARED_DIFFERENCE "
    "MIRROR_PAD ABS SPLIT_V UNIQUE CEIL REVERSE_V2 ADD_N GATHER_ND COS WHERE RANK ELU REVERSE_SEQUENCE MATRIX_DIAG "
    "QUANTIZE MATRIX_SET_DIAG ROUND HARD_SWISH IF WHILE NON_MAX_SUPPRESSION_V4 NON_MAX_SUPPRESSION_V5 SCATTER_ND "
    "SELECT_V2 DENSIFY SEGMENT_SUM BATCH_MATMUL PLACEHOLDER_FOR_GREATER_OP_CODES CUMSUM CALL_ONCE BROADCAST_TO "
    "RFFT2D CONV_3D IMAG REAL COMPLEX_ABS HASHTABLE HASHTABLE_FIND HASHTABLE_IMPORT HASHTABLE_SIZE REDUCE_ALL "
    "CONV_3D_TRANSPOSE VAR_HANDLE READ_VARIABLE ASSIGN_VARIABLE BROADCAST_ARGS RANDOM_STANDARD_NORMAL BUCKETIZE "
    "RANDOM_UNIFORM MULTINOMIAL GELU DYNAMIC_UPDATE_SLICE RELU_0_TO_1 UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_MAX "
    "UNSORTED_SEGMENT_SUM ATAN2 UNSORTED_SEGMENT_MIN SIGN BITCAST BITWISE_XOR RIGHT_SHIFT STABLEHLO_LOGISTIC "
    "STABLEHLO_ADD STABLEHLO_DIVIDE STABLEHLO_MULTIPLY STABLEHLO_MAXIMUM STABLEHLO_RESHAPE STABLEHLO_CLAMP "
    "STABLEHLO_CONCATENATE STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONVOLUTION STABLEHLO_SLICE STABLEHLO_CUSTOM_CALL "
    "STABLEHLO_REDUCE STABLEHLO_ABS STABLEHLO_AND STABLEHLO_COSINE STABLEHLO_EXPONENTIAL STABLEHLO_FLOOR "
    "STABLEHLO_LOG STABLEHLO_MINIMUM STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER "
    "STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SUBTRACT STABLEHLO_TANH STABLEHLO_SCATTER STABLEHLO_COMPARE "
    "STABLEHLO_CONVERT STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_PAD STABLEHLO_IOTA "
    "STABLEHLO_DOT_GENERAL STABLEHLO_REDUCE_WINDOW STABLEHLO_SORT STABLEHLO_WHILE STABLEHLO_GATHER "
    "STABLEHLO_TRANSPOSE DILATE STABLEHLO_RNG_BIT_GENERATOR REDUCE_WINDOW STABLEHLO_COMPOSITE STABLEHLO_SHIFT_LEFT "
    "STABLEHLO_CBRT "
).split()


def is_tflite(head: bytes) -> bool:
    """Return whether a file is TensorFlow Lite, by the identifier of its flatbuffer."""
    return head.startswith(_IDENTIFIER, _IDENTIFIER_OFFSET)


def read_tflite(reader: Reader, budget: Budget, builder: SignatureBuilder, _siblings: Siblings) -> None:
    """Read a TensorFlow Lite file into the builder.

    Raises:
        UnknownFormatError: The identifier is missing.
        FormatError: The file is damaged or too large.
    """
    head = reader.read_at(0, min(_IDENTIFIER_OFFSET + len(_IDENTIFIER), reader.size))
    if not is_tflite(head):
        raise UnknownFormatError("The file is not a TensorFlow Lite model.")
    _Model(reader, budget, builder).read()


class _Flatbuffer:
    """Reads values of a flatbuffer. Methods raise FormatError for an offset outside of the file."""

    def __init__(self, reader: Reader, budget: Budget) -> None:
        self._reader = reader
        self._budget = budget

    def number(self, at: int, kind: str) -> int:
        """Return the integer at an offset. `kind` is its `struct` format."""
        self._budget.step()
        (number,) = struct.unpack(f"<{kind}", self._reader.read_at(at, struct.calcsize(f"<{kind}")))
        return int(number)

    def require(self, end: int) -> None:
        """Raise FormatError if the file ends before `end`."""
        if end > self._reader.size:
            raise FormatError("The file is truncated.")

    def follow(self, at: int) -> int:
        """Return the target of the reference at an offset."""
        return at + self.number(at, "I")

    def field(self, table: int, index: int) -> int | None:
        """Return the offset of a field of a table, or None if the field has its default."""
        fields = table - self.number(table, "i")
        entry = 4 + 2 * index
        if entry + 2 > self.number(fields, "H"):
            return None
        offset = self.number(fields + entry, "H")
        return table + offset if offset else None

    def scalar(self, table: int, index: int, kind: str, default: int = 0) -> int:
        """Return an integer field."""
        at = self.field(table, index)
        return default if at is None else self.number(at, kind)

    def text(self, table: int, index: int) -> str:
        """Return a text field."""
        at = self.field(table, index)
        if at is None:
            return ""
        at = self.follow(at)
        # A character takes up to four bytes. One more than is kept lets `clean` mark the text as cut.
        length = min(self.number(at, "I"), 4 * limits.TEXT_LENGTH + 4)
        return clean(self._reader.read_at(at + 4, length).decode(errors="replace"))

    def numbers(self, table: int, index: int, most: int) -> list[int] | None:
        """Return a field of 32-bit integers, at most `most` + 1 of them, or None if it is absent."""
        at = self.field(table, index)
        if at is None:
            return None
        at = self.follow(at)
        count = min(self.number(at, "I"), most + 1)
        return list(struct.unpack(f"<{count}i", self._reader.read_at(at + 4, 4 * count)))

    def tables(self, table: int, index: int) -> Iterator[int]:
        """Yield the offset of each table in a field."""
        at = self.field(table, index)
        if at is None:
            return
        at = self.follow(at)
        for i in range(self.number(at, "I")):
            yield self.follow(at + 4 + 4 * i)


class _Model:
    """The state of reading one model."""

    def __init__(self, reader: Reader, budget: Budget, builder: SignatureBuilder) -> None:
        self._flatbuffer = _Flatbuffer(reader, budget)
        self._builder = builder

    def read(self) -> None:
        """Read the root table."""
        flatbuffer = self._flatbuffer
        model = flatbuffer.follow(0)
        self._builder.add_metadata("version", str(flatbuffer.scalar(model, 0, "I")))
        description = flatbuffer.text(model, 3)
        if description:
            self._builder.add_metadata("description", description)
        operators = [self._operator(code) for code in flatbuffer.tables(model, 1)]
        used: Counter[str] = Counter()
        for i, graph in enumerate(flatbuffer.tables(model, 2)):
            self._graph(graph, operators, used, is_main=i == 0)
        self._builder.add_metadata("operators", ", ".join(f"{name} {n}" for name, n in used.most_common()))
        self._check_size(model)

    def _operator(self, code: int) -> str:
        """Return the name of an OperatorCode."""
        # The first field holds numbers up to 127. Larger ones are only in the other field.
        number = max(self._flatbuffer.scalar(code, 0, "b"), self._flatbuffer.scalar(code, 3, "i"))
        if number == _CUSTOM:
            return self._flatbuffer.text(code, 1) or "CUSTOM"
        return _OPERATORS[number] if 0 <= number < len(_OPERATORS) else f"operator {number}"

    def _graph(self, graph: int, operators: list[str], used: Counter[str], *, is_main: bool) -> None:
        """Read the weights of a SubGraph, and the inputs and outputs of the main one."""
        flatbuffer = self._flatbuffer
        inputs = flatbuffer.numbers(graph, 1, limits.TENSORS) or []
        outputs = flatbuffer.numbers(graph, 2, limits.TENSORS) or []
        made = set(inputs)
        for operator in flatbuffer.tables(graph, 3):
            code = flatbuffer.scalar(operator, 0, "I")
            used[operators[code] if code < len(operators) else f"operator code {code}"] += 1
            made.update(flatbuffer.numbers(operator, 2, limits.TENSORS) or ())
        found: dict[int, Tensor] = {}
        shown = {*inputs, *outputs} if is_main else set()
        for i, table in enumerate(flatbuffer.tables(graph, 0)):
            if i in shown:
                found[i] = self._tensor(table)
            if i not in made and not flatbuffer.scalar(table, 5, "B"):
                self._add_weight(table)
        if is_main:
            self._builder.inputs = [found[i] for i in inputs if i in found]
            self._builder.outputs = [found[i] for i in outputs if i in found]

    def _tensor(self, table: int) -> Tensor:
        flatbuffer = self._flatbuffer
        kind, _ = _type(flatbuffer.scalar(table, 1, "b"))
        # shape_signature has -1 for a dynamic size, for which the shape has the initial size.
        sizes = flatbuffer.numbers(table, 7, limits.DIMENSIONS) or flatbuffer.numbers(table, 0, limits.DIMENSIONS)
        shape: list[int | str] | None = [size if size >= 0 else "?" for size in sizes or ()]
        if not shape and not flatbuffer.scalar(table, 8, "B"):
            shape = None  # a scalar, or a tensor of unknown rank
        return tensor(flatbuffer.text(table, 3), kind, shape)

    def _add_weight(self, table: int) -> None:
        kind, bits = _type(self._flatbuffer.scalar(table, 1, "b"))
        elements = 1
        for size in self._flatbuffer.numbers(table, 0, limits.DIMENSIONS) or ():
            elements *= max(size, 0)
        self._builder.add_weight(kind, (bits or 1) * elements)

    def _check_size(self, model: int) -> None:
        """Check that the last buffers of the file exist, as a truncated file lacks them. Some may be empty."""
        for last in heapq.nlargest(_LAST_BUFFERS, self._flatbuffer.tables(model, 4)):
            data = self._flatbuffer.field(last, 0)
            if data is not None:
                at = self._flatbuffer.follow(data)
                self._flatbuffer.require(at + 4 + self._flatbuffer.number(at, "I"))


def _type(number: int) -> tuple[str, int]:
    return _TYPES[number] if 0 <= number < len(_TYPES) else (f"type {number}", 0)
