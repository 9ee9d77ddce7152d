"""What an artifact says about the model inside: its inputs, its outputs, the types of its weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MORE_MODELS = "The ZIP holds more models; only this one was read."
"""The problem of a schema that is that of one model of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """An input, an output, or a weight."""

    name: str
    element_type: str
    """In the words of its format: `f32`, `FLOAT`, `BF16`. Empty where it is not told."""
    shape: tuple[int | str, ...] | None
    """One entry a dimension: its size, or a text for what is decided later (`batch`, `?`, `1..8`).
    None where even the number of dimensions is not told; empty for a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What was read from an artifact at its registration."""

    format: str = ""
    """`openvino`, `onnx`, `safetensors`, `gguf`, `tflite`, or that of a file of which only the format is told; empty
    where no model was found, only problems of the ZIP."""
    file_name: str = ""
    """The member of the ZIP that was read; empty where the artifact itself is the model."""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    weights: tuple[Tensor, ...] = ()
    """Of safetensors, GGUF and NumPy, as many as are kept."""
    weight_count: int = 0
    """Of all weights."""
    precision: tuple[str, ...] = ()
    """The element types of the weights as precisions (fp32, fp16, int8, int4, others as they are called), the one
    that takes the most bytes first. Empty where it is unknown."""
    producer: str = ""
    """What wrote the file."""
    opsets: Mapping[str, int] = field(default_factory=dict)
    """Version of each operator set, by its domain."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the file says about itself, as texts by (dotted) names."""
    problems: tuple[str, ...] = ()
    """What is wrong with the file, for a person: `the weights model.bin are missing`."""
