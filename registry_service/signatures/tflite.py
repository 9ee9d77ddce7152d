"""Reads TensorFlow Lite (LiteRT): walks the tables of its flatbuffer, and passes over the weights.

The numbers of fields, types and operators are those of TensorFlow's signature.fbs. A
weight is a tensor that no operator makes and that is no input: its buffer, which
may be anywhere in the file, need not be looked at.
"""

import heapq
import struct
from collections import Counter
from collections.abc import Iterator

from registry_service.domain.signature import Tensor
from registry_service.signatures import limits
from registry_service.signatures.builder import Findings, Siblings, clean, tensor
from registry_service.signatures.file_reader import Budget, FormatError, Reader, UnknownFormatError

_IDENTIFIER = b"TFL3"
_IDENTIFIER_OFFSET = 4
# Name and bits of an element.
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
"""The operator that only its own code tells."""
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
    """Tells whether a file is TensorFlow Lite, by the identifier of its flatbuffer."""
    return head.startswith(_IDENTIFIER, _IDENTIFIER_OFFSET)


def read_tflite(reader: Reader, budget: Budget, findings: Findings, _siblings: Siblings) -> None:
    """Fills the findings.

    Raises:
        UnknownFormatError: It has not the identifier.
        FormatError: It is damaged, or too large.
    """
    head = reader.read_at(0, min(_IDENTIFIER_OFFSET + len(_IDENTIFIER), reader.size))
    if not is_tflite(head):
        raise UnknownFormatError("It is no TensorFlow Lite model.")
    _Model(reader, budget, findings).read()


class _Flatbuffer:
    """Values at places in a flatbuffer. One that leads outside of the file is a FormatError."""

    def __init__(self, reader: Reader, budget: Budget) -> None:
        self._reader = reader
        self._budget = budget

    def number(self, at: int, kind: str) -> int:
        """Returns an integer, of a type as `struct` has it."""
        self._budget.step()
        (number,) = struct.unpack(f"<{kind}", self._reader.read_at(at, struct.calcsize(f"<{kind}")))
        return int(number)

    def expect(self, end: int) -> None:
        """Raises FormatError where the file ends before `end`."""
        if end > self._reader.size:
            raise FormatError("It is cut short.")

    def follow(self, at: int) -> int:
        """Returns where a reference leads."""
        return at + self.number(at, "I")

    def field(self, table: int, index: int) -> int | None:
        """Returns where a field of a table is; None where it has its default."""
        fields = table - self.number(table, "i")
        entry = 4 + 2 * index
        if entry + 2 > self.number(fields, "H"):
            return None
        offset = self.number(fields + entry, "H")
        return table + offset if offset else None

    def scalar(self, table: int, index: int, kind: str, default: int = 0) -> int:
        """Returns an integer field."""
        at = self.field(table, index)
        return default if at is None else self.number(at, kind)

    def text(self, table: int, index: int) -> str:
        """Returns a text field."""
        at = self.field(table, index)
        if at is None:
            return ""
        at = self.follow(at)
        # A character takes up to four bytes; one more than is kept shows that it was cut.
        length = min(self.number(at, "I"), 4 * limits.TEXT_LENGTH + 4)
        return clean(self._reader.read_at(at + 4, length).decode(errors="replace"))

    def numbers(self, table: int, index: int, most: int) -> list[int] | None:
        """Returns a field of 32-bit integers, but no more than one over `most`; None where it is absent."""
        at = self.field(table, index)
        if at is None:
            return None
        at = self.follow(at)
        count = min(self.number(at, "I"), most + 1)
        return list(struct.unpack(f"<{count}i", self._reader.read_at(at + 4, 4 * count)))

    def tables(self, table: int, index: int) -> Iterator[int]:
        """Yields where the tables of a field are."""
        at = self.field(table, index)
        if at is None:
            return
        at = self.follow(at)
        for i in range(self.number(at, "I")):
            yield self.follow(at + 4 + 4 * i)


class _Model:
    """One reading of a model."""

    def __init__(self, reader: Reader, budget: Budget, findings: Findings) -> None:
        self._flatbuffer = _Flatbuffer(reader, budget)
        self._findings = findings

    def read(self) -> None:
        """Reads the root table."""
        flatbuffer = self._flatbuffer
        model = flatbuffer.follow(0)
        self._findings.add_metadata("version", str(flatbuffer.scalar(model, 0, "I")))
        description = flatbuffer.text(model, 3)
        if description:
            self._findings.add_metadata("description", description)
        operators = [self._operator(code) for code in flatbuffer.tables(model, 1)]
        used: Counter[str] = Counter()
        for i, graph in enumerate(flatbuffer.tables(model, 2)):
            self._graph(graph, operators, used, is_main=i == 0)
        self._findings.add_metadata("operators", ", ".join(f"{name} {n}" for name, n in used.most_common()))
        self._check_size(model)

    def _operator(self, code: int) -> str:
        """Returns the name of an OperatorCode."""
        # The first field holds numbers up to 127; those over it are in the other alone.
        number = max(self._flatbuffer.scalar(code, 0, "b"), self._flatbuffer.scalar(code, 3, "i"))
        if number == _CUSTOM:
            return self._flatbuffer.text(code, 1) or "CUSTOM"
        return _OPERATORS[number] if 0 <= number < len(_OPERATORS) else f"operator {number}"

    def _graph(self, graph: int, operators: list[str], used: Counter[str], *, is_main: bool) -> None:
        """Reads a SubGraph: the weights, and of the first one inputs and outputs."""
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
            self._findings.inputs = [found[i] for i in inputs if i in found]
            self._findings.outputs = [found[i] for i in outputs if i in found]

    def _tensor(self, table: int) -> Tensor:
        flatbuffer = self._flatbuffer
        kind, _ = _type(flatbuffer.scalar(table, 1, "b"))
        # The signature has -1 where the shape has the size that the interpreter begins with.
        sizes = flatbuffer.numbers(table, 7, limits.DIMENSIONS) or flatbuffer.numbers(table, 0, limits.DIMENSIONS)
        shape: list[int | str] | None = [size if size >= 0 else "?" for size in sizes or ()]
        if not shape and not flatbuffer.scalar(table, 8, "B"):
            shape = None  # a scalar, or of an unknown number of dimensions
        return tensor(flatbuffer.text(table, 3), kind, shape)

    def _add_weight(self, table: int) -> None:
        kind, bits = _type(self._flatbuffer.scalar(table, 1, "b"))
        elements = 1
        for size in self._flatbuffer.numbers(table, 0, limits.DIMENSIONS) or ():
            elements *= max(size, 0)
        self._findings.add_weight(kind, (bits or 1) * elements)

    def _check_size(self, model: int) -> None:
        """Looks at the buffers that are last in the file, some of which are empty: one that is cut short lacks them."""
        for last in heapq.nlargest(_LAST_BUFFERS, self._flatbuffer.tables(model, 4)):
            data = self._flatbuffer.field(last, 0)
            if data is not None:
                at = self._flatbuffer.follow(data)
                self._flatbuffer.expect(at + 4 + self._flatbuffer.number(at, "I"))


def _type(number: int) -> tuple[str, int]:
    return _TYPES[number] if 0 <= number < len(_TYPES) else (f"type {number}", 0)
