"""The signature of a model: its inputs, its outputs and the types of its weights, as read from its file."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MORE_MODELS = "The ZIP holds more models; only this one was read."
"""The problem of a signature whose ZIP has several models."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input, an output, or a weight."""

    name: str
    element_type: str
    """As its format names it: `f32`, `FLOAT`, `BF16`. Empty if unknown."""
    shape: tuple[int | str, ...] | None
    """One entry per dimension: its size, or a text for a dynamic size (`batch`, `?`, `1..8`). Empty for a scalar;
    None if the number of dimensions is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The signature that was read from an artifact when it was registered."""

    format: str = ""
    """`openvino`, `onnx`, `safetensors`, `gguf` or `tflite`; another name for a format that is only recognized;
    empty if a ZIP has problems but no model."""
    file_name: str = ""
    """Path of the model in the ZIP; empty if the artifact itself is the model."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    weights: tuple[Tensor, ...] = ()
    """Weights of safetensors, GGUF and NumPy, up to a limit."""
    weight_count: int = 0
    """Number of all weights."""
    precision: tuple[str, ...] = ()
    """Precisions of the weights (fp32, fp16, int8, int4 and others), the one with the most bytes first. Empty if
    unknown."""
    producer: str = ""
    """Name and version of the program that wrote the file."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    """Version of each operator set, by domain."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Metadata in the file, by dotted names."""
    problems: tuple[str, ...] = ()
    """What is wrong with the file, as sentences: `The weights file model.bin is missing.`"""
