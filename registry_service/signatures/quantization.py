"""Determines the width of weights that quantizers pack into tensors of a wider type.

Safetensors has few types narrower than a byte, so quantizers put several
weights into one element: GPTQ and AWQ eight of four bits into an I32
(`qweight`), bitsandbytes and the FP4 formats two into a U8. The width follows
from the names and shapes of companion tensors, or from the configuration of the
quantizer. Otherwise it is unknown.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from registry_service.signatures import limits

ReadData = Callable[[int, int], bytes | None]
"""Returns the bytes of a tensor by the offset and size of its data, or None if reading them is too expensive."""
ReadBeside = Callable[[str], bytes | None]
"""Returns the content of a small file beside the model, or None if it does not exist."""

_WIDE = {"I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64}
_BYTES = {"U8": 8, "I8": 8}
_COMPANION = re.compile(
    r"[._](q?zeros?|zero_point|g_idx|scales?(_inv|_\d)?|(nested_)?absmax|(nested_)?quant_map|SCB|weight_shape)$"
    r"|\.quant_state\.bitsandbytes__\w+$"
)
"""Companion tensors of quantized weights: scales, zero points, orders, shapes."""
_COMPANION_TYPES = _BYTES.keys() | _WIDE.keys() | {"F8_E4M3", "F8_E5M2", "F8_E8M0"}
"""Types of companion tensors that could be mistaken for quantized weights."""
_SCALES = ("_scale", "_scales", "_scale_inv", "scale", "scales")
"""Suffixes of the scales of a tensor, after its name or instead of the last part of its name."""
_PACKED_NAMES = frozenset({"W_q", "_data", "qdata", "_weight_qdata"})
"""Names of packed tensors of other quantizers."""
_CONFIGURATIONS = ("config.json", "quantize_config.json", "quant_config.json", "hf_quant_config.json")
_WIDTH_NAMES = frozenset({"bits", "w_bit", "wbits", "weight_bits", "num_bits", "nbits"})
_FLAGS = {"load_in_4bit": 4, "load_in_8bit": 8}
_ALGORITHM_NAMES = frozenset({"quant_algo", "quant_type", "weights", "_type"})
_ALGORITHMS = ((re.compile(r"fp4|nf4|w4a|int4|4bit"), 4), (re.compile(r"fp8|float8|w8a|int8|8bit"), 8))
_OTHERS = re.compile(r"activation|kv_cache|scale|zero|exclude|ignore|not_convert")
"""Parts of a configuration that do not concern weights."""
_CONFIGURATION_DEPTH = 6
_READ_SHAPES = 8
"""Most shapes that are read from the data."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    element_type: str
    shape: tuple[int, ...]
    start: int
    """Offset of its data in the data of the file."""
    size: int
    """In bytes."""

    @property
    def bits(self) -> int:
        """Bits of an integer type; 0 for other types."""
        return _BYTES.get(self.element_type, 0) or _WIDE.get(self.element_type, 0)


class PackedWeights:
    """The tensors of a file that may hold packed weights, and their companions."""

    def __init__(self, read_data: ReadData) -> None:
        self._read_data = read_data
        self._by_ratio: dict[float, str | None] = {}
        """Types found by shape, by the elements of a packed row per scale."""
        self._tensors: dict[str, _Tensor] = {}
        self._other_bytes = 0

    def takes(self, name: str, element_type: str, shape: tuple[int, ...], start: int, size: int) -> bool:
        """Remember a tensor. Returns whether `weights` yields it, as its type may not be that of its weights."""
        found = _Tensor(element_type, shape, start, size)
        is_companion = _COMPANION.search(name) is not None
        may_be_packed = len(shape) > 1 and found.bits > 0
        if (is_companion or may_be_packed) and len(self._tensors) < limits.NAMES:
            self._tensors[name] = found
            return element_type in _COMPANION_TYPES
        if element_type not in _WIDE:
            self._other_bytes += size
        return False

    def weights(self, read_beside: ReadBeside) -> Iterator[tuple[str | None, int]]:
        """Yield the type and the size in bytes of each tensor that was taken.

        The type is an unpacked one (`int4`, `f4`), that of the file if nothing is packed, empty for a companion, or
        None if it is unknown.
        """
        types = {
            name: "" if _COMPANION.search(name) else self._type(name, found)
            for name, found in self._tensors.items()
            if found.element_type in _COMPANION_TYPES
        }
        # Matrices of wide integers that make up most of a file are packed weights, whatever their names.
        wide = {name: self._tensors[name].size for name, kind in types.items() if kind in _WIDE}
        others = sum(self._tensors[name].size for name in types if name not in wide)
        if sum(wide.values()) > others + self._other_bytes:
            types |= dict.fromkeys(wide, None)
        is_open = {name for name, kind in types.items() if kind is None or (kind == "I8" and self._scales(name))}
        width = _configured_width(read_beside) if is_open else None
        for name, kind in types.items():
            yield (f"int{width}" if width and name in is_open else kind), self._tensors[name].size

    def _type(self, name: str, found: _Tensor) -> str | None:
        get = self._tensors.get
        for kind, element_type in (("nf4", "int4"), ("fp4", "f4")):
            if f"{name}.quant_state.bitsandbytes__{kind}" in self._tensors:
                return element_type
        last = name.rpartition(".")[2]
        stem = name.removesuffix(last)
        if last == "qweight":
            by_zeros = _ratio(get(f"{stem}qzeros"), get(f"{stem}scales"), -1)
            return by_zeros or _ratio(found, get(f"{stem}g_idx"), 0)
        if last == "weight_packed":
            zeros, scales = get(f"{stem}weight_zero_point"), get(f"{stem}weight_scale")
            by_zeros = _ratio(zeros, scales, 0)
            by_shape = by_zeros or self._by_shape(found, scales, get(f"{stem}weight_shape"))
            return "f4" if found.element_type == "U8" else by_shape
        if last in _PACKED_NAMES:
            return None if found.element_type != "I8" else "I8"
        scales = self._scales(name)
        # 64-bit integers are indices, which may have scales beside them too.
        if scales is None or found.element_type in {"I8", "I64", "U64"}:
            return found.element_type
        return "f4" if _is_fp4(name, found, scales) else None

    def _by_shape(self, packed: _Tensor, scales: _Tensor | None, original: _Tensor | None) -> str | None:
        """Return the type of packed weights by their original shape, which is the data of a companion tensor."""
        if scales is None or original is None or 0 in scales.shape[-1:] or not scales.shape or original.size != 16:
            return None
        ratio = packed.shape[-1] / scales.shape[-1]
        if ratio not in self._by_ratio and len(self._by_ratio) < _READ_SHAPES:
            columns = int.from_bytes((self._read_data(original.start, original.size) or b"")[8:], "little")
            bits = packed.bits * packed.shape[-1] // columns if columns else 0
            self._by_ratio[ratio] = f"int{bits}" if 1 < bits <= 8 else None
        return self._by_ratio.get(ratio)

    def _scales(self, name: str) -> _Tensor | None:
        last = name.rpartition(".")[2]
        names = (f"{name.removesuffix('_blocks')}_scales", *(name + end for end in _SCALES))
        names = (*names, *(name.removesuffix(last) + end for end in _SCALES))
        return next((self._tensors[other] for other in names if other in self._tensors), None)


def _ratio(packed: _Tensor | None, whole: _Tensor | None, axis: int) -> str | None:
    """Return the integer type of which `packed` holds as many along an axis as `whole` has elements."""
    if packed is None or whole is None or not packed.shape or not whole.shape or whole.shape[axis] == 0:
        return None
    bits, rest = divmod(packed.bits * packed.shape[axis], whole.shape[axis])
    return f"int{bits}" if rest == 0 and 1 < bits <= 8 else None


def _is_fp4(name: str, tensor: _Tensor, scales: _Tensor) -> bool:
    """Return whether there is one scale per block of 16 (NVFP4) or 32 (MXFP4) numbers of four bits."""
    if tensor.element_type != "U8" or not scales.shape:
        return False
    if name.endswith("_blocks"):
        return tensor.shape[:-1] == scales.shape and tensor.shape[-1] == 16
    block = {"F8_E4M3": 16, "U8": 32, "F8_E8M0": 32}.get(scales.element_type)
    return block is not None and scales.shape[-1] * block == tensor.shape[-1] * 2


def _configured_width(read_beside: ReadBeside) -> int | None:
    """Return the bits per quantized weight in the model's configuration, or None if it has none or several."""
    for file_name in _CONFIGURATIONS:
        content = read_beside(file_name)
        if content is None:
            continue
        try:
            config = json.loads(content)
        except (ValueError, RecursionError):
            continue
        if not isinstance(config, dict):
            continue
        section = config.get("quantization_config") or config.get("quantization")
        if section is None and file_name != "config.json":
            section = config
        widths = set(_widths(section, _CONFIGURATION_DEPTH))
        if len(widths) == 1:
            return widths.pop()
    return None


def _widths(section: Any, depth: int) -> Iterator[int]:
    """Yield the widths of weights in a part of a configuration."""
    if not isinstance(section, dict) or depth == 0:
        return
    for name, value in section.items():
        if _OTHERS.search(name):
            continue
        if name in _WIDTH_NAMES and type(value) is int and 1 < value <= 8:
            yield value
        elif value is True and name in _FLAGS:
            yield _FLAGS[name]
        elif name in _ALGORITHM_NAMES and isinstance(value, str):
            yield from (width for pattern, width in _ALGORITHMS if pattern.search(value.lower()))
        else:
            yield from _widths(value, depth - 1)
