"""Small model files for tests, as the tools of each format write them."""

import base64
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper

WEIGHTS = bytes(864 + 12)

IR = """<?xml version="1.0"?>
<net name="torch_jit" version="11">
    <layers>
        <layer id="0" name="image" type="Parameter" version="opset1">
            <data shape="?,3,224..448,640" element_type="u8" />
            <output>
                <port id="0" precision="U8" names="image,input\\,0">
                    <dim>-1</dim><dim>3</dim><dim>-1</dim><dim>640</dim>
                </port>
            </output>
        </layer>
        <layer id="1" name="conv.weight" type="Const" version="opset1">
            <data element_type="i8" shape="32, 3, 3, 3" offset="0" size="864" />
            <output><port id="0" precision="I8"><dim>32</dim><dim>3</dim><dim>3</dim><dim>3</dim></port></output>
        </layer>
        <layer id="2" name="scale" type="Const" version="opset1">
            <data element_type="f16" shape="2" offset="864" size="4" />
            <rt_info><attribute name="decompression" version="0" /></rt_info>
            <output><port id="0" precision="FP16"><dim>2</dim></port></output>
        </layer>
        <layer id="3" name="axis" type="Const" version="opset1">
            <data element_type="i64" shape="1" offset="868" size="8" />
            <output><port id="0" precision="I64"><dim>1</dim></port></output>
        </layer>
        <layer id="4" name="loop" type="TensorIterator" version="opset1">
            <body>
                <layers>
                    <layer id="0" name="inner" type="Parameter" version="opset1">
                        <data shape="1" element_type="f32" />
                        <output><port id="0" precision="FP32" names="inner"><dim>1</dim></port></output>
                    </layer>
                    <layer id="1" name="inner_result" type="Result" version="opset1">
                        <input><port id="0" precision="FP32"><dim>1</dim></port></input>
                    </layer>
                </layers>
                <edges><edge from-layer="0" from-port="0" to-layer="1" to-port="0" /></edges>
            </body>
        </layer>
        <layer id="5" name="head" type="Convolution" version="opset1">
            <data strides="1, 1" />
            <input><port id="0" precision="FP32"><dim>-1</dim></port></input>
            <output>
                <port id="2" precision="FP32" names="boxes"><dim>-1</dim><dim>100</dim><dim>5</dim></port>
                <port id="3" precision="I64"><dim>-1</dim><dim>100</dim></port>
            </output>
        </layer>
        <layer id="6" name="boxes/sink" type="Result" version="opset1">
            <input><port id="0" precision="FP32"><dim>-1</dim><dim>100</dim><dim>5</dim></port></input>
        </layer>
        <layer id="7" name="labels/sink" type="Result" version="opset1">
            <input><port id="0" precision="I64"><dim>-1</dim><dim>100</dim></port></input>
        </layer>
    </layers>
    <edges>
        <edge from-layer="0" from-port="0" to-layer="5" to-port="0" />
        <edge from-layer="5" from-port="2" to-layer="6" to-port="0" />
        <edge from-layer="5" from-port="3" to-layer="7" to-port="0" />
    </edges>
    <rt_info>
        <Runtime_version value="2024.4.0-16579-c3152d32c9c" />
        <conversion_parameters>
            <framework value="pytorch" />
            <is_python_object value="True" />
        </conversion_parameters>
        <model_info>
            <labels value="cat dog" />
            <model_type value="ssd" />
        </model_info>
        <nncf>
            <quantization>
                <preset value="mixed" />
                <advanced_parameters value="{'overflow_fix': 'disable'}" />
            </quantization>
        </nncf>
    </rt_info>
</net>
"""


def geti_deployment(ir: str = IR, weights: bytes | None = WEIGHTS, task: str = "Detection") -> dict[str, bytes]:
    """Return the members of a ZIP archive as Geti exports a deployment."""
    folder = f"deployment/{task}"
    members = {
        "deployment/project.json": b"{}",
        f"{folder}/model.json": b'{"name": "SSD"}',
        f"{folder}/model/config.json": b'{"type_of_model": "ssd"}',
        f"{folder}/model/model.xml": ir.encode(),
    }
    return members if weights is None else members | {f"{folder}/model/model.bin": weights}


def onnx_model(
    *,
    weights: Sequence[onnx.TensorProto] | None = None,
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    nodes: Sequence[onnx.NodeProto] = (),
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return an ONNX model that adds a weight to its input."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"]), *nodes],
        "adder",
        inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, None])],
        initializer=[raw_weight("w", TensorProto.FLOAT, [4], 16)] if weights is None else weights,
    )
    model = helper.make_model(
        graph,
        producer_name="pytorch",
        producer_version="2.5.1",
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=9,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def raw_weight(name: str, kind: int, shape: Sequence[int], size: int) -> onnx.TensorProto:
    """Return a weight with this many bytes of data."""
    return helper.make_tensor(name, kind, shape, bytes(size), raw=True)


def safetensors(
    tensors: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return a safetensors file of tensors by name: type, shape, and bytes of data."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, (element_type, shape, size) in tensors.items():
        header[name] = {"dtype": element_type, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    return safetensors_file(json.dumps(header).encode(), bytes(end))


def safetensors_file(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with any header."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


TFLITE = zlib.decompress(
    base64.b85decode(
        b"c-mc(Jx;?w5QSeH6V{dmE~3Z<g$qhLT52i~6kNcNC2<jgVoN|rNkPd$C@DAsHKL~E66Wpf7*<~EllN!doAIm*02jw6hrkXBOp(DL"
        b"N6Zzt0!p$^4#-$}jer-@l98TqiZ}9160*K7tFpCCtG>B7d*5@ClOphU`giiA^O$VG`@1nAA6z_=Ba)LZ&FNxSRej^)GCJ?dj^P|a"
        b"=`BjPd-`y8>*G?X)2TD98A<wAXR6w%)-bGTEZS6J`go(7QP3*{`ixI3J4SULsIR?mHx=LCUDr9;@VvQNZ!Bi4(eGyH$2NC;Dx<xP"
        b"g1oMG%X&Vy?9iurM?O9ZYwo}CvaTA?v5;OG>A^6M-b)hZ>-8?*ovjzk)`iUEuY$(;umAVyd%UN5me<8W{e92tRkg5u|LD0vI3{uj"
        b"6O9kgVtIgHX;U&1"
    )
)
"""A model of TensorFlow Lite as the packages flatbuffers and tflite write it, of version 3, `of a test`.

FULLY_CONNECTED makes `hidden` of `image` (FLOAT32, [1, 4] with the signature [-1, 4]), `weight` (INT8, [2, 4]) and
`bias` (INT32, [2]); MyOp makes of that `score` and `extra` (FLOAT32, []), of which `score` alone has a rank.
"""


def gguf(
    tensors: Mapping[str, tuple[int, Sequence[int], int]],
    metadata: Mapping[str, Any] | None = None,
    *,
    order: str = "<",
    version: int = 3,
    data: bytes | None = None,
) -> bytes:
    """Return a GGUF file of tensors by name: number of the type, shape, and bytes of data.

    Metadata values may be bool, int (32 bits), float, str, or a list of those.
    """

    def text(value: str) -> bytes:
        encoded = value.encode()
        return struct.pack(f"{order}Q", len(encoded)) + encoded

    def typed(value: Any) -> tuple[int, bytes]:
        match value:
            case bool():
                return 7, struct.pack("?", value)
            case int():
                return 4, struct.pack(f"{order}I", value)
            case float():
                return 6, struct.pack(f"{order}f", value)
            case str():
                return 8, text(value)
            case _:
                items = [typed(item) for item in value]
                kind = items[0][0] if items else 4
                return 9, struct.pack(f"{order}IQ", kind, len(items)) + b"".join(packed for _, packed in items)

    known = metadata or {}
    out = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(known))
    for key, value in known.items():
        kind, packed = typed(value)
        out += text(key) + struct.pack(f"{order}I", kind) + packed
    offset = 0
    for name, (number, shape, size) in tensors.items():
        out += text(name) + struct.pack(f"{order}I{len(shape)}QIQ", len(shape), *shape, number, offset)
        offset += -(-size // 32) * 32
    out += bytes(-len(out) % 32)
    return out + (bytes(offset) if data is None else data)
