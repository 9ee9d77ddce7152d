"""What is read from model files, and what hostile ones can't do to the one who reads."""

import io
import json
import os
import pickle
import re
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from registry_service.domain.models import ArtifactSpec
from registry_service.domain.signature import Signature, Tensor
from registry_service.services.signature_reading import HEAD_BYTES, read_signature
from registry_service.signatures import limits
from registry_service.storage.sql import rows
from tests.client import zip_of
from tests.model_files import (
    IR,
    TFLITE,
    WEIGHTS,
    geti_deployment,
    gguf,
    onnx_model,
    raw_weight,
    safetensors,
    safetensors_file,
)

MIB = 1024 * 1024


class OneObject:
    """A store with one object, which counts what is read of it."""

    part_size = 8 * MIB

    def __init__(self, data: Any) -> None:
        self.data = data
        self.bytes_read = 0
        self.reads = 0

    def read(self, _key: str, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        assert length is not None
        self.reads += 1
        self.bytes_read += length
        yield bytes(self.data[offset : offset + length])


def read(data: Any, file_name: str = "model.bin", media_type: str = "", store: OneObject | None = None) -> Any:
    store = store or OneObject(data)
    spec = ArtifactSpec(file_name=file_name, media_type=media_type)
    return read_signature(store, spec, "key", len(data), bytes(data[:HEAD_BYTES]))  # type: ignore[arg-type]


def signature_of(data: Any, file_name: str = "model.bin") -> Signature:
    signature = read(data, file_name)
    assert isinstance(signature, Signature)
    return signature


def tensor(name: str, element_type: str, *shape: int | str) -> Tensor:
    return Tensor(name=name, element_type=element_type, shape=shape)


@contextmanager
def bounded(mebibytes: float, seconds: float = limits.SECONDS + 5) -> Iterator[None]:
    """Expects that the block takes no more memory than this at any time, nor more time."""
    tracemalloc.start()
    started = time.monotonic()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * MIB, f"{peak / MIB:.1f} MiB"
    assert time.monotonic() - started < seconds


EDGE_TO_SECOND = '<edge from-layer="1" from-port="1" to-layer="3" to-port="0"/>'


def ir(version: str = "11", names: str = "", precision: str = 'precision="FP32"') -> str:
    """An IR of one ReLU with these attributes of its output port, and of the port of its Result."""
    dimensions = "<dim>1</dim><dim>4</dim>"
    return (
        f'<net version="{version}"><layers>'
        '<layer id="0" name="x" type="Parameter"><data shape="[1, 4]" element_type="f16"/>'
        f'<output><port id="0" precision="FP16">{dimensions}</port></output></layer>'
        f'<layer id="1" name="relu" type="ReLU"><input><port id="0">{dimensions}</port></input>'
        f'<output><port id="1" precision="FP32" {names}>{dimensions}</port></output></layer>'
        '<layer id="2" name="relu/sink_port_0" type="Result">'
        f'<input><port id="0" {precision}>{dimensions}</port></input></layer></layers><edges>'
        '<edge from-layer="0" from-port="0" to-layer="1" to-port="0"/>'
        '<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>'
    )


class TestOpenVino:
    def test_a_deployment_of_geti_tells_all(self) -> None:
        signature = signature_of(zip_of(geti_deployment()))
        assert signature == Signature(
            format="openvino",
            file_name="deployment/Detection/model/model.xml",
            inputs=(tensor("image", "u8", "?", 3, "224..448", 640),),
            outputs=(tensor("boxes", "f32", "?", 100, 5), tensor("labels/sink", "i64", "?", 100)),
            weight_count=3,
            precision=("int8", "fp16"),
            producer="OpenVINO 2024.4.0-16579-c3152d32c9c",
            metadata={
                "ir_version": "11",
                "Runtime_version": "2024.4.0-16579-c3152d32c9c",
                "conversion_parameters.framework": "pytorch",
                "conversion_parameters.is_python_object": "True",
                "model_info.labels": "cat dog",
                "model_info.model_type": "ssd",
                "nncf.quantization.preset": "mixed",
                "nncf.quantization.advanced_parameters": "{'overflow_fix': 'disable'}",
            },
        )

    def test_an_artifact_may_be_the_xml_itself_but_then_lacks_its_weights(self) -> None:
        signature = signature_of(IR.encode(), "ssd.xml")
        assert signature.file_name == ""
        assert len(signature.inputs) == 1
        assert signature.problems == ("Its weights, the file ssd.bin, are missing.",)

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    @pytest.mark.parametrize("mark", ["\ufeff", ""])
    @pytest.mark.parametrize("start", ["<?xml version='1.0'?>", "<?xml version='1.0' encoding='utf-16'?>", ""])
    def test_an_ir_in_utf_16_is_read(self, encoding: str, mark: str, start: str) -> None:
        signature = signature_of((mark + start + ir().replace('name="x"', 'name="bild"')).encode(encoding), "m.xml")
        assert (signature.format, [tensor.name for tensor in signature.inputs], signature.problems) == (
            "openvino",
            ["bild"],
            (),
        )

    @pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be"])
    def test_an_ir_in_utf_32_is_said_to_be_unread(self, encoding: str) -> None:
        signature = signature_of(ir().encode(encoding), "m.xml")
        assert (signature.format, signature.problems) == ("openvino", ("It is encoded in UTF-32, which is not read.",))

    @pytest.mark.parametrize(
        ("weights", "problem"),
        [
            (None, "Its weights, the file model.bin, are missing."),
            (WEIGHTS[:-1], "Its weights take 876 bytes of model.bin, which has 875."),
        ],
    )
    def test_weights_that_are_missing_or_cut_are_a_problem(self, weights: bytes | None, problem: str) -> None:
        signature = signature_of(zip_of(geti_deployment(weights=weights)))
        assert signature.problems == (problem,)
        assert len(signature.outputs) == 2

    def test_a_model_without_weights_needs_no_file_of_them(self) -> None:
        ir = '<net version="10"><layers><layer id="0" name="x" type="Parameter"><data shape="" element_type="f32"/>'
        ir += '</layer><layer id="1" name="y" type="Parameter"><data shape="..." element_type="f32"/></layer>'
        signature = signature_of(f"{ir}</layers></net>".encode())
        assert signature.inputs == (tensor("x", "f32"), Tensor(name="y", element_type="f32", shape=None))
        assert signature.problems == ()

    @pytest.mark.parametrize(
        "data",
        [
            b"<html><net></net></html>",
            b"<?xml version='1.0'?><network/>",
            b"<?xml version='1.0'?><!-- <net > --><annotation/>",
            b"not XML with a <net > in it",
        ],
    )
    def test_other_xml_is_none(self, data: bytes) -> None:
        assert read(data, "model.xml") is None

    def test_a_tensor_is_called_by_the_first_of_its_names(self) -> None:
        signature = signature_of(ir(names='names="z\\,1,,b"').encode())
        assert signature.outputs == (tensor("b", "f32", 1, 4),)
        signature = signature_of(ir(names='names="a\\,1,b"').encode())
        assert signature.outputs == (tensor("a,1", "f32", 1, 4),)

    @pytest.mark.parametrize(
        ("names", "output"),
        [("", "relu"), ('names="out"', "out"), ('names="z"', "relu")],
    )
    def test_outputs_of_version_10_are_called_after_the_layer_that_feeds_them(self, names: str, output: str) -> None:
        signature = signature_of(ir(version="10", names=names, precision="").encode())
        assert signature.inputs == (tensor("x", "f16", 1, 4),)
        assert signature.outputs == (tensor(output, "f32", 1, 4),)

    def test_a_layer_of_version_10_with_two_outputs_numbers_them(self) -> None:
        signature = signature_of(
            b'<net version="10"><layers><layer id="0" name="split" type="Split">'
            b'<output><port id="1" precision="FP32"/><port id="2" precision="I32" names="s"/></output></layer>'
            b'<layer id="1" name="first" type="Result"><input><port id="0"/></input></layer>'
            b'<layer id="2" name="second" type="Result"><input><port id="0"/></input></layer></layers><edges>'
            b'<edge from-layer="0" from-port="2" to-layer="2" to-port="0"/>'
            b'<edge from-layer="0" from-port="1" to-layer="1" to-port="0"/></edges></net>'
        )
        assert signature.outputs == (tensor("split.0", "f32"), tensor("s", "i32"))

    def test_weights_of_version_10_may_leave_their_type_to_the_port(self) -> None:
        const = '<layer id="0" name="w" type="Const"><data offset="0" size="864"/>'
        const += '<output><port id="0" precision="FP16"><dim>432</dim></port></output></layer>'
        signature = signature_of(f'<net version="10"><layers>{const}</layers></net>'.encode())
        assert (signature.weight_count, signature.precision) == (1, ("fp16",))

    def test_two_outputs_of_one_port_have_their_own_names(self) -> None:
        second = '<layer id="3" name="r" type="Result" output_names="second,more">'
        second += '<input><port id="0" precision="FP32"><dim>1</dim><dim>4</dim></port></input></layer>'
        model = ir(names='names="first"').replace("</layers><edges>", f"{second}</layers><edges>{EDGE_TO_SECOND}")
        assert [output.name for output in signature_of(model.encode()).outputs] == ["first", "more"]
        model = model.replace('type="Result">', 'type="Result" output_names="own">', 1)
        assert [output.name for output in signature_of(model.encode()).outputs] == ["own", "more"]

    def test_a_shape_without_dimensions_is_open_in_version_11(self) -> None:
        for version, shape in (("10", ()), ("11", None)):
            (output,) = signature_of(ir(version=version).replace("<dim>1</dim><dim>4</dim>", "").encode()).outputs
            assert output.shape == shape

    def test_a_shape_of_many_digits_is_whole(self) -> None:
        shape = ",".join([f"1..{10**30}"] * 64)
        (found,) = signature_of(ir().replace('shape="[1, 4]"', f'shape="{shape}"').encode()).inputs
        assert found.shape == (f"1..{10**30}",) * 64

    @pytest.mark.parametrize(
        ("version", "found"),
        [("7", "IR version 7"), ("6", "IR version 6"), ("12", "IR version 12"), ("", "no IR version")],
    )
    def test_a_version_that_openvino_does_not_read_is_a_problem(self, version: str, found: str) -> None:
        signature = signature_of(ir(version=version).encode(), "model.xml")
        problem = f"It has {found}, which OpenVINO does not read; it reads versions 10 and 11."
        assert (signature.format, signature.inputs, signature.outputs) == ("openvino", (), ())
        assert signature.problems == (problem,)

    @pytest.mark.parametrize("cut", [600, 2000, len(IR) - 8])
    def test_what_was_read_of_damaged_xml_is_kept(self, cut: int) -> None:
        signature = signature_of(IR.encode()[:cut], "model.xml")
        assert "It is damaged: its XML is not well-formed." in signature.problems
        assert len(signature.inputs) == 1


def external_weight(location: str = "w.data", kind: int = TensorProto.FLOAT, size: int = 4) -> onnx.TensorProto:
    """A weight of 1,024 elements in another file."""
    weight = onnx.TensorProto(name="w", data_type=kind, dims=[1024], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("length", str(1024 * size))):
        weight.external_data.add(key=key, value=value)
    return weight


def constant(**attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **(attributes or {"value": external_weight()}))


def sparse(values: onnx.TensorProto, indices: onnx.TensorProto) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(values, indices, [9999])


def in_function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("d", "f", [], ["c"], [constant()], []))


def in_default(model: onnx.ModelProto) -> None:
    default = helper.make_attribute("w", external_weight())
    model.functions.append(helper.make_function("d", "f", [], ["c"], [], [], attribute_protos=[default]))


def in_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([constant()], "b", [], [])
    empty = helper.make_graph([], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=empty))


def in_indices(model: onnx.ModelProto) -> None:
    values = raw_weight("v", TensorProto.FLOAT16, [1024], 2048)
    model.graph.sparse_initializer.append(sparse(values, external_weight(kind=TensorProto.INT64, size=8)))


INDICES = raw_weight("i", TensorProto.INT64, [1024], 8192)
EXTERNAL_PLACES: Mapping[str, Callable[[onnx.ModelProto], None]] = {
    "initializer": lambda model: model.graph.initializer.append(external_weight()),
    "constant": lambda model: model.graph.node.append(constant()),
    "constants": lambda model: model.graph.node.append(constant(values=[external_weight()])),
    "sparse constant": lambda model: model.graph.node.append(constant(sparse_value=sparse(external_weight(), INDICES))),
    "sparse initializer": lambda model: model.graph.sparse_initializer.append(sparse(external_weight(), INDICES)),
    "indices": in_indices,
    "branch": in_branch,
    "function": in_function,
    "default of an attribute": in_default,
    "training": lambda model: model.training_info.add().algorithm.node.append(constant()),
    "initialization": lambda model: model.training_info.add().initialization.initializer.append(external_weight()),
}


class TestOnnx:
    def test_a_model_tells_all(self) -> None:
        signature = signature_of(onnx_model(metadata={"author": "someone", "author ": "else"}).SerializeToString())
        assert signature == Signature(
            format="onnx",
            inputs=(tensor("x", "FLOAT", "batch", 4, "?"),),
            outputs=(tensor("y", "FLOAT", "batch", 4, "?"),),
            weight_count=1,
            precision=("fp32",),
            producer="pytorch 2.5.1",
            opsets={"ai.onnx": 18, "ai.onnx.ml": 3},
            metadata={"ir_version": "9", "author": "someone", "author ": "else"},
        )

    def test_weights_that_are_inputs_as_well_are_none(self) -> None:
        inputs = [
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, None),
        ]
        signature = signature_of(onnx_model(inputs=inputs).SerializeToString())
        assert signature.inputs == (Tensor(name="x", element_type="FLOAT16", shape=None),)

    def test_inputs_that_are_no_tensors(self) -> None:
        element = helper.make_tensor_type_proto(TensorProto.INT64, [2])
        inputs = [
            helper.make_value_info("maybe", helper.make_optional_type_proto(element)),
            helper.make_value_info("many", helper.make_sequence_type_proto(element)),
            helper.make_value_info("mapped", helper.make_map_type_proto(TensorProto.INT64, element)),
        ]
        signature = signature_of(onnx_model(inputs=inputs).SerializeToString())
        assert signature.inputs == (
            tensor("maybe", "optional(INT64)", 2),
            Tensor(name="many", element_type="sequence(INT64)", shape=None),
            Tensor(name="mapped", element_type="map", shape=None),
        )

    def test_the_precision_of_most_bytes_comes_first_wherever_weights_are(self) -> None:
        constant = helper.make_node("Constant", [], ["c"], value=raw_weight("", TensorProto.FLOAT16, [500], 1000))
        branch = helper.make_graph([], "then", [], [], initializer=[raw_weight("b", TensorProto.BFLOAT16, [150], 300)])
        sparse = helper.make_sparse_tensor(
            helper.make_tensor("s", TensorProto.DOUBLE, [20], [1.0] * 20),
            helper.make_tensor("i", TensorProto.INT64, [20], range(20)),
            [100],
        )
        model = onnx_model(
            weights=[
                raw_weight("w", TensorProto.UINT8, [3000], 3000),
                raw_weight("half a byte", TensorProto.INT4, [5], 3),
                raw_weight("shape", TensorProto.INT64, [9999], 8 * 9999),
            ],
            nodes=[constant, helper.make_node("If", ["x"], ["z"], then_branch=branch, else_branch=branch)],
        )
        model.graph.sparse_initializer.append(sparse)
        signature = signature_of(model.SerializeToString())
        assert signature.precision == ("int8", "fp16", "bf16", "fp64", "int4")
        assert signature.problems == ()

    def test_packed_and_single_dimensions_are_the_same(self) -> None:
        weight = raw_weight("w", TensorProto.FLOAT, [2, 2], 16)
        single = weight.SerializeToString()
        packed = b"\x0a\x02\x02\x02" + single.removeprefix(b"\x08\x02\x08\x02")
        assert onnx.TensorProto.FromString(packed) == weight
        data = onnx_model(weights=[weight]).SerializeToString()
        assert len(packed) == len(single)
        assert signature_of(data.replace(single, packed)) == signature_of(data)

    def external(self, location: str = "weights/w.data") -> bytes:
        weight = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "4096"), ("length", "16")):
            weight.external_data.add(key=key, value=value)
        return onnx_model(weights=[weight]).SerializeToString()

    @pytest.mark.parametrize(
        ("data", "problems"),
        [
            (bytes(4112), ()),
            (bytes(4111), ("Its weights take 4112 bytes of the file weights/w.data, which has 4111.",)),
            (None, ("Its weights are in the file weights/w.data, which is missing.",)),
        ],
    )
    def test_weights_in_another_file_are_looked_for(self, data: bytes | None, problems: tuple[str, ...]) -> None:
        members = {"m/model.onnx": self.external()} | ({} if data is None else {"m/weights/w.data": data})
        signature = signature_of(zip_of(members))
        assert signature.problems == problems
        assert signature.precision == ("fp32",)

    @pytest.mark.parametrize("location", ["/etc/passwd", "../w", "a/../../w", ".."])
    def test_weights_outside_of_the_folder_are_a_problem_wherever_they_are(self, location: str) -> None:
        members = {"m/model.onnx": self.external(location), "w": bytes(5000), "/etc/passwd": bytes(5000)}
        problem, *_ = signature_of(zip_of(members)).problems
        assert problem == f"Its weights are in the file {location}, which is not in its folder."

    def test_weights_in_a_file_without_a_name_are_a_problem(self) -> None:
        problems = signature_of(zip_of({"m/model.onnx": self.external("")})).problems
        assert problems == ("Its weights are in another file, but not told in which.",)

    def test_weights_of_another_size_than_their_shape_are_a_problem_in_another_file_too(self) -> None:
        data = self.external().replace(b"\x12\x0216", b"\x12\x0212")
        signature = signature_of(zip_of({"m/model.onnx": data, "m/weights/w.data": bytes(5000)}))
        assert signature.problems == ("Its weight 'w' has 12 bytes of data, not the 16 of its shape.",)

    @pytest.mark.parametrize("place", EXTERNAL_PLACES)
    def test_weights_in_another_file_are_looked_for_wherever_they_are_named(self, place: str) -> None:
        model = onnx_model(weights=[])
        EXTERNAL_PLACES[place](model)
        for is_there, problems in ((True, ()), (False, ("Its weights are in the file w.data, which is missing.",))):
            members = {"m/model.onnx": model.SerializeToString()} | ({"m/w.data": bytes(8192)} if is_there else {})
            signature = signature_of(zip_of(members))
            assert signature.problems == problems
            assert (signature.weight_count, signature.precision) == (
                (1, ("fp32",)) if place != "indices" else (1, ("fp16",))
            )

    def test_each_of_many_other_files_is_looked_for(self) -> None:
        weights = [external_weight(f"w{i}") for i in range(300)]
        members = {"model.onnx": onnx_model(weights=weights).SerializeToString()}
        members |= {f"w{i}": bytes(8192) for i in range(300) if i != 299}
        assert signature_of(zip_of(members)).problems == ("Its weights are in the file w299, which is missing.",)

    @pytest.mark.parametrize(
        ("operator", "attributes", "precision"),
        [
            ("MatMulNBits", {"K": 64, "N": 64, "bits": 4, "block_size": 32}, ("int4", "fp16")),
            ("MatMulNBits", {"K": 64, "N": 64, "bits": 2, "block_size": 32}, ("int2", "fp16")),
            ("MatMulNBits", {"K": 64, "N": 64, "bits": 8, "block_size": 32}, ("int8", "fp16")),
            ("MatMulBnb4", {"K": 64, "N": 64, "quant_type": 1}, ("int4", "fp16")),
            ("GatherBlockQuantized", {"bits": 4}, ("int4", "fp16")),
            ("QMoE", {"expert_weight_bits": 4}, ("int4", "fp16")),
            ("MatMulInteger", {}, ("int8", "fp16")),
        ],
    )
    def test_weights_that_onnx_runtime_unpacks_count_as_what_is_packed(
        self, operator: str, attributes: dict[str, Any], precision: tuple[str, ...]
    ) -> None:
        node = helper.make_node(operator, ["x", "packed", "scales"], ["z"], domain="com.microsoft", **attributes)
        weights = [
            raw_weight("packed", TensorProto.UINT8, [64, 2, 16], 2048),
            raw_weight("scales", TensorProto.FLOAT16, [128], 256),
        ]
        signature = signature_of(onnx_model(weights=weights, nodes=[node]).SerializeToString())
        assert (signature.precision, signature.weight_count, signature.problems) == (precision, 2, ())

    def test_a_type_that_is_not_known_is_told(self) -> None:
        weights = [raw_weight("w", TensorProto.FLOAT, [4], 16), onnx.TensorProto(name="v", data_type=99, dims=[9])]
        signature = signature_of(onnx_model(weights=weights).SerializeToString())
        assert (signature.precision, signature.problems) == (("fp32", "type 99"), ())

    def test_weights_of_another_size_than_their_shape_are_a_problem(self) -> None:
        weight = raw_weight("w", TensorProto.FLOAT, [4], 16)
        weight.dims[0] = 5
        problems = signature_of(onnx_model(weights=[weight]).SerializeToString()).problems
        assert problems == ("Its weight 'w' has 16 bytes of data, not the 20 of its shape.",)

    def test_two_gibibytes_of_weights_are_passed_over(self) -> None:
        head = onnx_model(weights=[]).SerializeToString()
        graph = onnx.ModelProto.FromString(head).graph
        start = head.index(b"\x3a")
        size = 2**31
        weight = b"\x08" + _varint(size // 4) + b"\x10\x01\x42\x01w\x4a" + _varint(size)
        before = b"\x2a" + _varint(len(weight) + size) + weight
        after = graph.SerializeToString()
        beginning = head[:start] + b"\x3a" + _varint(len(before) + size + len(after)) + before
        ending = after + head[start:].split(after)[1]

        class Sparse:
            def __len__(self) -> int:
                return len(beginning) + size + len(ending)

            def __getitem__(self, at: slice) -> bytes:
                parts = [beginning[at]]
                gap = min(at.stop, len(self)) - max(at.start or 0, len(beginning))
                if (at.start or 0) + max(gap, 0) > len(beginning) and gap > 0:
                    data = bytearray(gap)
                    first = max(at.start or 0, len(beginning))
                    for i in range(max(first, len(beginning) + size), min(at.stop, len(self))):
                        data[i - first] = ending[i - len(beginning) - size]
                    parts.append(bytes(data))
                return b"".join(parts)

        store = OneObject(Sparse())
        signature = read(store.data, "huge.onnx", store=store)
        assert signature is not None
        assert signature.inputs == (tensor("x", "FLOAT", "batch", 4, "?"),)
        assert signature.precision == ("fp32",)
        assert signature.problems == ()
        assert store.bytes_read < MIB

    def test_what_is_only_called_onnx_is_a_problem(self) -> None:
        assert signature_of(b"weights", "model.onnx").problems == ("It is no ONNX.",)
        assert signature_of(b"", "model.onnx").problems == ("It is no ONNX.",)

    def test_what_happens_to_begin_like_onnx_is_nothing(self) -> None:
        assert read(b"\x08\x07\x12\xff" + bytes(100)) is None

    @pytest.mark.parametrize("cut", [12, 30, 60])
    def test_what_was_read_of_a_cut_one_is_kept(self, cut: int) -> None:
        signature = signature_of(onnx_model().SerializeToString()[:-cut])
        assert signature.problems == ("It is cut short.",)
        assert signature.producer == "pytorch 2.5.1"


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


F32_PAIR = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


class TestSafetensors:
    def test_a_file_tells_all(self) -> None:
        data = safetensors(
            {"a": ("BF16", [2, 3], 12), "b": ("F32", [], 4), "c": ("I64", [100], 800), "d": ("F4", [4], 2)},
            {"format": "pt", "note": 'with } and " and é'},
        )
        assert signature_of(data) == Signature(
            format="safetensors",
            weights=(tensor("a", "BF16", 2, 3), tensor("b", "F32"), tensor("c", "I64", 100), tensor("d", "F4", 4)),
            weight_count=4,
            precision=("bf16", "fp32", "f4"),
            metadata={"format": "pt", "note": 'with } and " and é'},
        )

    def test_a_header_may_be_filled_up_with_spaces(self) -> None:
        assert signature_of(safetensors_file(b"{}      ")).problems == ()

    @pytest.mark.parametrize(
        ("offsets", "problem"),
        [
            ("[0, 8], [4, 12]", "Its tensors overlap."),
            ("[0, 8], [8, 17]", "Its tensors go on behind its end: of their data it has 16 bytes."),
            ("[0, 8], [-8, 0]", "Its tensors have impossible offsets."),
            ("[0, 8], [16, 8]", "Its tensors have impossible offsets."),
            ("[0, 8], [8, 15]", "Its tensor 'b' has 7 bytes of data, which is not its shape."),
        ],
    )
    def test_data_that_is_not_there_is_a_problem(self, offsets: str, problem: str) -> None:
        a, b = (f'{{"dtype":"F32","shape":[2],"data_offsets":{found}}}' for found in json.loads(f"[{offsets}]"))
        header = f'{{"a":{a},"b":{b}}}'
        assert problem in signature_of(safetensors_file(header.encode(), bytes(16))).problems

    @pytest.mark.parametrize(
        "header",
        [
            b"{",
            b"{]",
            b'{"a"}',
            b'{"a":1}',
            b'{"a":{}}',
            b'{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}',
            b'{"a":{"dtype":"F32","shape":[' + b"[" * 3000 + b'],"data_offsets":[0,4]}}',
            b'{"a":{"dtype":"F32","shape":[' + b"1" * 4000 + b'],"data_offsets":[0,4]}}',
            b'{"__metadata__":{"a":{}}}',
            b'{"__metadata__":"a"}',
            b'{"__metadata__":[]}',
            b'{"__metadata__":nul}',
            b'{"__metadata__":{"a":null}}',
            b'{"__metadata__":{"a":1}}',
            b'{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":NaN}}',
            b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":"' + b"y" * 5000 + b'"}}',
            b"{} {}",
            b'{"a' + b"\xff" + b'":{}}',
        ],
    )
    def test_a_damaged_header_is_a_problem(self, header: bytes) -> None:
        problems = signature_of(safetensors_file(header), "model.safetensors").problems
        assert len(problems) == 1
        assert problems[0].startswith("Its header is")

    @pytest.mark.parametrize("metadata", ["null", "{}", '{"format":"pt"}'])
    def test_metadata_may_be_null(self, metadata: str) -> None:
        signature = signature_of(safetensors_file(f'{{"__metadata__":{metadata},"a":{F32_PAIR}}}'.encode(), bytes(8)))
        assert (signature.weight_count, signature.problems) == (1, ())

    @pytest.mark.parametrize(
        ("entries", "size", "problem"),
        [
            ('"a":[0,8],"b":[12,20]', 20, "Its data has a hole: the bytes 8 to 12 are no tensor's."),
            ('"a":[4,12]', 12, "Its data has a hole: the bytes 0 to 4 are no tensor's."),
            ('"b":[8,16],"a":[0,8]', 17, "It goes on behind its last tensor, by 1 bytes."),
            ("", 3, "It goes on behind its last tensor, by 3 bytes."),
            ('"a":[0,8],"a":[8,16]', 16, "It has two entries of the name 'a'."),
        ],
    )
    def test_a_layout_that_the_library_refuses_is_a_problem(self, entries: str, size: int, problem: str) -> None:
        header = re.sub(r"(\[\d+,\d+\])", r'{"dtype":"F32","shape":[2],"data_offsets":\1}', f"{{{entries}}}")
        assert signature_of(safetensors_file(header.encode(), bytes(size)), "m.safetensors").problems == (problem,)

    @pytest.mark.parametrize(
        "entry",
        [
            F32_PAIR,
            '{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":{"}":["}"]}}',
            '["F32",[2],[0,8]]',
            ' {\n"shape" : [ 2 ] , "dtype":"F32", "data_offsets": [0 , 8] } ',
            '{"dtype":"F32","shape":[2,0,18446744073709551615,2],"data_offsets":[0,0]}',
        ],
    )
    def test_whatever_else_describes_a_tensor_is_passed_over(self, entry: str) -> None:
        data = bytes(0 if ":[0,0]" in entry else 8)
        assert signature_of(safetensors_file(f'{{"a":{entry}}}'.encode(), data)).problems == ()

    @pytest.mark.parametrize(
        ("element_type", "shape", "size", "problem"),
        [
            ("Q8", [8], 8, "Its tensor 'a' has the type 'Q8', which is not known."),
            ("f32", [2], 8, "Its tensor 'a' has the type 'f32', which is not known."),
            ("F4", [3], 2, "Its tensor 'a' does not end at a byte."),
        ],
    )
    def test_types_that_the_library_refuses_are_a_problem(
        self, element_type: str, shape: list[int], size: int, problem: str
    ) -> None:
        assert signature_of(safetensors({"a": (element_type, shape, size)})).problems == (problem,)

    @pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 3])
    def test_a_header_that_is_longer_than_the_file_is_a_problem(self, length: int) -> None:
        signature = signature_of(safetensors_file(b"{}", length=length), "model.safetensors")
        assert signature.problems == (f"Its header should take {length} bytes, more than there are.",)

    def test_as_many_weights_as_fit_are_kept(self) -> None:
        signature = signature_of(safetensors({f"{'layer' * 30}.{i}": ("F32", [1], 4) for i in range(2000)}, {"a": "b"}))
        assert (signature.weight_count, len(signature.weights)) == (2000, 250)
        assert (signature.metadata, signature.problems) == ({"a": "b"}, ())
        assert len(signature_of(safetensors({str(i): ("F32", [1], 4) for i in range(1001)})).weights) == 1000


def gptq(bits: int, features: int = 128) -> dict[str, tuple[str, list[int], int]]:
    """The tensors of a layer that GPTQ quantized, of 2 groups."""
    packed = features * bits // 32
    return {
        "model.layers.0.q.qweight": ("I32", [packed, features], 4 * packed * features),
        "model.layers.0.q.qzeros": ("I32", [2, packed], 8 * packed),
        "model.layers.0.q.scales": ("F16", [2, features], 4 * features),
        "model.layers.0.q.g_idx": ("I32", [features], 4 * features),
        "model.norm.weight": ("F16", [features], 2 * features),
    }


AWQ = {
    "q.qweight": ("I32", [128, 16], 4 * 128 * 16),
    "q.qzeros": ("I32", [1, 16], 64),
    "q.scales": ("F16", [1, 128], 256),
}
NF4 = {
    "q.weight": ("U8", [4096, 1], 4096),
    "q.weight.absmax": ("U8", [128], 128),
    "q.weight.nested_absmax": ("F32", [1], 4),
    "q.weight.quant_map": ("F32", [16], 64),
    "q.weight.quant_state.bitsandbytes__nf4": ("U8", [90], 90),
    "norm.weight": ("BF16", [64], 128),
}
FP4 = {name.replace("nf4", "fp4"): found for name, found in NF4.items()}
NVFP4 = {
    "q.weight": ("U8", [64, 32], 2048),
    "q.weight_scale": ("F8_E4M3", [64, 4], 256),
    "q.weight_scale_2": ("F32", [], 4),
    "norm.weight": ("BF16", [64], 128),
}
PACKED_FP4 = {name.replace("q.weight", "q.weight_packed", name == "q.weight"): found for name, found in NVFP4.items()}
MXFP4 = {
    "mlp.gate_proj_blocks": ("U8", [2, 8, 4, 16], 1024),
    "mlp.gate_proj_scales": ("U8", [2, 8, 4], 64),
    "norm.weight": ("BF16", [64], 128),
}
FP8 = {"q.weight": ("F8_E4M3", [64, 64], 4096), "q.weight_scale_inv": ("F32", [1, 1], 4)}
INT8 = {"q.weight": ("I8", [64, 64], 4096), "q.SCB": ("F32", [64], 256), "norm.weight": ("F16", [64], 128)}
SCALED_INT8 = {"q.weight": ("I8", [64, 64], 4096), "q.weight_scale": ("F16", [64, 1], 128)}
PACKED = {
    "q.weight_packed": ("I32", [64, 8], 2048),
    "q.weight_scale": ("F16", [64, 2], 256),
    "q.weight_shape": ("I64", [2], 16),
}
PACKED_WITH_ZEROS = PACKED | {"q.weight_zero_point": ("I32", [8, 2], 64)}
MLX = {
    "q.weight": ("U32", [64, 8], 2048),
    "q.scales": ("F16", [64, 1], 128),
    "q.biases": ("F16", [64, 1], 128),
}
TRELLIS = {"q.trellis": ("I16", [4, 4, 64], 2048), "q.suh": ("F16", [64], 128)}
UNKNOWN_WIDTH = "Its precision is unknown: weights are packed into wider integers, of how many bits each is not told."


class TestPackedWeights:
    @pytest.mark.parametrize(
        ("tensors", "precision"),
        [
            (gptq(4), ("int4", "fp16")),
            (gptq(3), ("int3", "fp16")),
            (gptq(8), ("int8", "fp16")),
            (gptq(2), ("int2", "fp16")),
            ({name: found for name, found in gptq(4).items() if "qzeros" not in name}, ("int4", "fp16")),
            (AWQ, ("int4", "fp16")),
            (NF4, ("int4", "bf16", "fp32")),
            (FP4, ("f4", "bf16", "fp32")),
            (NVFP4, ("f4", "bf16", "fp32")),
            (PACKED_FP4, ("f4", "bf16", "fp32")),
            (MXFP4, ("f4", "bf16")),
            (FP8, ("f8_e4m3", "fp32")),
            (INT8, ("int8", "fp32", "fp16")),
            (SCALED_INT8, ("int8", "fp16")),
            (PACKED_WITH_ZEROS, ("int4", "fp16")),
        ],
    )
    def test_names_and_shapes_tell_the_width(self, tensors: Any, precision: tuple[str, ...]) -> None:
        signature = signature_of(safetensors(tensors))
        assert (signature.precision, signature.weight_count, signature.problems) == (precision, len(tensors), ())

    @pytest.mark.parametrize(
        ("columns", "precision"), [(64, ("int4", "fp16")), (32, ("int8", "fp16")), (60, ("int4", "fp16"))]
    )
    def test_the_shape_in_the_data_tells_the_width(self, columns: int, precision: tuple[str, ...]) -> None:
        data = safetensors(PACKED)[:-16] + struct.pack("<QQ", 64, columns)
        store = OneObject(data)
        signature = read(data, "m.safetensors", store=store)
        assert (signature.precision, signature.problems) == (precision, ())
        assert read(zip_of({"m.safetensors": data}, zipfile.ZIP_STORED)).precision == precision
        assert read(zip_of({"m.safetensors": data})).problems == (UNKNOWN_WIDTH,)

    @pytest.mark.parametrize("tensors", [PACKED, MLX, TRELLIS, {"q.W_q": ("U8", [64, 8], 512), "q.n": ("F16", [1], 2)}])
    def test_where_nothing_tells_it_the_precision_is_unknown(self, tensors: Any) -> None:
        signature = signature_of(safetensors(tensors))
        assert (signature.precision, signature.problems) == ((), (UNKNOWN_WIDTH,))
        assert signature.weight_count == len(tensors)

    @pytest.mark.parametrize(
        ("file_name", "config"),
        [
            ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}),
            ("config.json", {"quantization": {"group_size": 64, "bits": 4}, "num_bits": 7}),
            ("config.json", {"quantization_config": {"load_in_4bit": True, "load_in_8bit": False}}),
            ("config.json", {"quantization_config": {"quant_type": "int4_weight_only"}}),
            ("config.json", {"quantization_config": {"quant_method": "quanto", "weights": "int4"}}),
            (
                "config.json",
                {
                    "quantization_config": {
                        "config_groups": {"0": {"weights": {"num_bits": 4}, "input_activations": {"num_bits": 8}}},
                        "kv_cache_scheme": {"num_bits": 8},
                    }
                },
            ),
            ("quantize_config.json", {"bits": 4}),
            ("quant_config.json", {"w_bit": 4}),
            ("hf_quant_config.json", {"quantization": {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": "FP8"}}),
        ],
    )
    @pytest.mark.parametrize("tensors", [PACKED, MLX])
    def test_the_configuration_beside_it_tells_the_width(self, tensors: Any, file_name: str, config: Any) -> None:
        members = {"m/model.safetensors": safetensors(tensors), f"m/{file_name}": json.dumps(config).encode()}
        signature = signature_of(zip_of(members))
        assert (signature.precision, signature.problems) == (("int4", "fp16"), ())

    @pytest.mark.parametrize(
        "config",
        [
            b"",
            b"[" * 200_000,
            b"[]",
            b"{}",
            b'{"quantization_config":7}',
            b'{"quantization_config":{"bits":true}}',
            b'{"quantization_config":{"bits":400}}',
            b'{"quantization":{"bits":4,"model.layers.0":{"bits":8}}}',
            b'{"quantization_config":{"bits":4},"x":"' + b"x" * limits.CONFIGURATION_BYTES + b'"}',
        ],
    )
    def test_a_configuration_that_tells_no_width_leaves_it_unknown(self, config: bytes) -> None:
        signature = signature_of(zip_of({"model.safetensors": safetensors(MLX), "config.json": config}))
        assert (signature.precision, signature.problems) == ((), (UNKNOWN_WIDTH,))

    def test_indices_are_not_taken_for_weights(self) -> None:
        tensors = {
            "attn.relative_position_index": ("I64", [64, 64], 32768),
            "attn.scale": ("F32", [1], 4),
            "attn.weight": ("F32", [100, 100], 40000),
            "ids": ("I64", [9999], 8 * 9999),
            "mask": ("U8", [8, 8], 64),
        }
        signature = signature_of(safetensors(tensors))
        assert (signature.precision, signature.problems) == (("fp32", "int8"), ())


# Of a file that gguf-py 0.19 wrote, and as its reader tells it.
LLAMA = {
    "token_embd.weight": (12, [256, 64], 9216),
    "blk.0.attn_q.weight": (14, [256, 32], 6720),
    "output_norm.weight": (0, [256], 1024),
    "blk.0.ffn.weight": (1, [256, 4], 2048),
}
LLAMA_METADATA = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "general.file_type": 15,
    "llama.rope.freq_base": 1000000.0,
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.ggml.tokens": [f"token {i}" for i in range(1000)],
    "tokenizer.ggml.scores": [0.5] * 1000,
    "general.tags": ["text", "tiny"],
}


class TestGguf:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_a_file_tells_all_in_either_byte_order(self, order: str) -> None:
        assert signature_of(gguf(LLAMA, LLAMA_METADATA, order=order), "m.gguf") == Signature(
            format="gguf",
            weights=(
                tensor("token_embd.weight", "Q4_K", 256, 64),
                tensor("blk.0.attn_q.weight", "Q6_K", 256, 32),
                tensor("output_norm.weight", "F32", 256),
                tensor("blk.0.ffn.weight", "F16", 256, 4),
            ),
            weight_count=4,
            precision=("int4", "q6_k", "fp16", "fp32"),
            metadata={
                "version": "3",
                "general.architecture": "llama",
                "general.name": "tiny",
                "general.file_type": "15",
                "llama.rope.freq_base": "1000000",
                "tokenizer.ggml.add_bos_token": "true",
                "general.tags": "text, tiny",
                "quantization": "Q4_K_M",
                "parameter_count": "25856",
                "tensor_types": "Q4_K 1, Q6_K 1, F32 1, F16 1",
            },
        )

    @pytest.mark.parametrize(
        ("number", "shape", "size", "precision"),
        [
            (2, [32], 18, "int4"),
            (23, [256], 136, "int4"),
            (8, [32], 34, "int8"),
            (24, [4], 4, "int8"),
            (30, [4], 8, "bf16"),
            (39, [32], 17, "f4"),
            (10, [256], 84, "q2_k"),
            (34, [256], 54, "tq1_0"),
        ],
    )
    def test_quantizations_are_told(self, number: int, shape: list[int], size: int, precision: str) -> None:
        signature = signature_of(gguf({"a": (number, shape, size)}))
        assert (signature.precision, signature.problems) == ((precision,), ())

    def test_tensors_of_an_unknown_type_are_told(self) -> None:
        signature = signature_of(gguf({"a": (999, [256], 84), "b": (999, [256], 84), "c": (0, [1], 4)}))
        assert (signature.weight_count, signature.precision) == (3, ("type 999", "fp32"))
        assert signature.problems == ("It has tensors of the unknown type 999, whose size is unknown too.",)

    @pytest.mark.parametrize("text", [b"GGUF is a format of files", b"GGUFxyz and more", b"GGUF\n\n\n\n"])
    def test_a_text_that_begins_like_it_is_not_taken_for_it(self, text: bytes) -> None:
        assert read(text, "about.txt") is None
        assert read(zip_of({"about.gguf.txt": text})) is None
        assert signature_of(text, "about.gguf").problems == ("It is no GGUF.",)

    def test_long_vocabularies_are_passed_over_quickly(self) -> None:
        data = gguf(LLAMA, {"tokens": ["a token"] * 300_000, "after": 1})
        store = OneObject(data)
        signature = read(data, "m.gguf", store=store)
        assert signature.metadata["after"] == "1"
        assert (signature.weight_count, signature.problems) == (4, ())
        assert store.bytes_read < len(data) + MIB

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (gguf(LLAMA)[:-100], "It is cut short: of the 19008 bytes of its tensors it has 18908."),
            (gguf(LLAMA)[:60], "It is cut short."),
            (gguf(LLAMA, version=1), "It has GGUF version 1; versions 2 and 3 are read."),
            (gguf(LLAMA, version=4), "It has GGUF version 4; versions 2 and 3 are read."),
            (gguf({"a": (12, [255], 144)}), "Its tensor 'a' is no whole number of blocks of 256 elements."),
            (gguf({}, {"general.alignment": 33}), "Its alignment is 33, which is no power of two."),
            (gguf({}, {"split.count": 3}), "It is one of 3 parts of a model; only this part was read."),
            (gguf({"a": (0, [1] * 65, 4)}), "It has a tensor of more than 64 dimensions."),
            (b"GGUF", "It is cut short."),
            (gguf({}, {"a": 1}).replace(b"a\x04\0\0\0", b"a\x0d\0\0\0"), "It has a value of an unknown kind."),
        ],
    )
    def test_what_is_wrong_is_told(self, data: bytes, problem: str) -> None:
        assert signature_of(data).problems == (problem,)

    def test_what_is_only_called_gguf_is_a_problem(self) -> None:
        assert signature_of(b"weights", "model.gguf").problems == ("It is no GGUF.",)

    def test_it_is_found_in_a_zip(self) -> None:
        signature = signature_of(zip_of({"m/model.gguf": gguf(LLAMA), "m/mmproj.gguf": gguf(LLAMA), "a.npy": b""}))
        assert (signature.file_name, signature.weight_count) == ("m/model.gguf", 4)


class TestTensorFlowLite:
    def test_a_model_tells_all(self) -> None:
        assert signature_of(TFLITE) == Signature(
            format="tflite",
            inputs=(tensor("image", "FLOAT32", "?", 4),),
            outputs=(tensor("score", "FLOAT32"), Tensor(name="extra", element_type="FLOAT32", shape=None)),
            weight_count=2,
            precision=("int8",),
            metadata={"version": "3", "description": "of a test", "operators": "FULLY_CONNECTED 1, MyOp 1"},
        )

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_it_is_found_in_a_zip(self, compression: int) -> None:
        signature = signature_of(zip_of({"first": b"x", "m/model.tflite": TFLITE}, compression))
        assert (signature.format, signature.file_name, len(signature.outputs)) == ("tflite", "m/model.tflite", 2)

    def test_what_is_far_in_the_file_is_read_there(self) -> None:
        moved = 64 * MIB
        data = bytearray(TFLITE[:8] + bytes(moved) + TFLITE[8:])
        data[:4] = struct.pack("<I", int.from_bytes(data[:4], "little") + moved)
        store = OneObject(data)
        signature = read(data, "m.tflite", store=store)
        assert (len(signature.outputs), signature.weight_count) == (2, 2)
        assert store.bytes_read < MIB
        compressed = signature_of(zip_of({"m.tflite": bytes(data)}))
        assert compressed.problems == ("Only its first 16 MiB were read, as it is compressed.",)

    @pytest.mark.parametrize("cut", [1, 100, 400, 730])
    def test_one_that_is_cut_short_is_told(self, cut: int) -> None:
        assert signature_of(TFLITE[:-cut]).problems == ("It is damaged or cut short: it refers to what is not in it.",)

    def test_a_cut_buffer_is_told(self) -> None:
        weights = TFLITE.index(struct.pack("<I", 8) + bytes(8))
        data = TFLITE[:weights] + struct.pack("<I", 80_000) + TFLITE[weights + 4 :]
        signature = signature_of(data)
        assert (signature.weight_count, signature.problems) == (2, ("It is cut short.",))

    @pytest.mark.parametrize("data", [b"weights", b"", b"\0\0\0\0TFL"])
    def test_what_is_only_called_tflite_is_a_problem(self, data: bytes) -> None:
        assert signature_of(data, "m.tflite").problems == ("It is no TensorFlow Lite model.",)


def numpy_file(array: Any) -> bytes:
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=True)
    return file.getvalue()


MAYBE_OBJECTS = "Whether its arrays hold pickled objects, which run code when they are loaded, is unknown."
MAYBE_OBJECTS_OF_ONE = "Whether it holds pickled objects, which run code when they are loaded, is unknown."
HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(832)
TORCH = {"m/data.pkl": pickle.dumps({}), "m/byteorder": b"little", "m/data/0": bytes(16), "m/version": b"3\n"}
TORCH_LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)
RUNS_CODE = "Loading it runs code that is in it, as it is a pickle: load it only from those whom you trust."


class TestRecognized:
    """What is only called what it is."""

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize(
        "value", [{}, {"a": 1}, [1.0], (1, 2), "text", None, 7, 10**30, b"x", Signature(format="")]
    )
    def test_a_pickle_whatever_it_is_called(self, protocol: int, value: object) -> None:
        signature = signature_of(pickle.dumps(value, protocol=protocol), "weights.dat")
        assert (signature.format, signature.problems) == ("pickle", (RUNS_CODE,))

    @pytest.mark.parametrize(
        ("data", "file_name", "kind", "problems"),
        [
            (pickle.dumps({"a": 1}, protocol=0), "m.pkl", "pickle", (RUNS_CODE,)),
            (b"\x1f\x8b compressed", "m.joblib", "pickle", (RUNS_CODE,)),
            (TORCH_LEGACY, "m.pth", "pytorch", (RUNS_CODE,)),
            (zip_of(TORCH), "m.pt", "pytorch", (RUNS_CODE,)),
            (zip_of(TORCH | {"m/constants.pkl": b""}), "m.pt", "torchscript", ()),
            (zip_of(TORCH | {"m/code/__torch__.py": b""}), "m.zip", "torchscript", ()),
            (zip_of(dict.fromkeys(["metadata.json", "config.json", "model.weights.h5"], b"")), "m.keras", "keras", ()),
            (zip_of({"a.npy": numpy_file([1]), "b.npy": numpy_file([1])}), "m.npz", "numpy", ()),
            (HDF5, "m.h5", "hdf5", ()),
            (HDF5 + b"keras_version", "m.h5", "keras", ()),
            (bytes(512) + HDF5, "m.dat", "hdf5", ()),
            (bytes(1024) + HDF5 + b"keras_version", "m.dat", "keras", ()),
            (bytes(8192) + HDF5 + b"layer_names", "m.dat", "keras", ()),
            (bytes(MIB) + HDF5 + b"keras_version", "m.h5", "keras", ()),
            (zip_of({"m/m.hdf5": bytes(MIB) + HDF5 + b"keras_version"}), "m.zip", "keras", ()),
            (bytes(1000) + HDF5, "m.h5", "hdf5", ("It is no HDF5.",)),
            (
                zip_of({"m/saved_model.pb": b"\x08\x01\x12\x00", "m/variables/variables.index": b""}),
                "",
                "tensorflow",
                (),
            ),
            (zip_of({"m/model.pt": zip_of(TORCH)}), "m.zip", "pytorch", (RUNS_CODE,)),
            (zip_of({"m/pytorch_model.bin": TORCH_LEGACY, "m/config.json": b""}), "m.zip", "pytorch", (RUNS_CODE,)),
            (zip_of({"m/model.keras": zip_of({"metadata.json": b""})}), "m.zip", "keras", ()),
            (zip_of({"m/a.npz": zip_of({"a.npy": b""})}), "m.zip", "numpy", (MAYBE_OBJECTS,)),
            (zip_of({"m/model.pkl": pickle.dumps([])}), "m.zip", "pickle", (RUNS_CODE,)),
        ],
    )
    def test_formats_are_named(self, data: bytes, file_name: str, kind: str, problems: tuple[str, ...]) -> None:
        signature = read(data, file_name, "application/zip" if data.startswith(b"PK") else "")
        assert (signature.format, signature.problems, signature.inputs) == (kind, problems, ())

    @pytest.mark.parametrize(
        ("array", "element_type", "problems"),
        [
            (numpy.zeros((2, 3), "<f2"), "float16", ()),
            (numpy.zeros((2, 3), ">f4"), "float32", ()),
            (numpy.zeros((2, 3), "u1"), "uint8", ()),
            (numpy.zeros((2, 3), "?"), "b1", ()),
            (numpy.zeros((2, 3), "<i8"), "int64", ()),
            (numpy.full((2, 3), None), "O", (RUNS_CODE,)),
        ],
    )
    def test_an_array_tells_its_shape_and_no_precision(
        self, array: Any, element_type: str, problems: tuple[str, ...]
    ) -> None:
        assert signature_of(numpy_file(array)) == Signature(
            format="numpy",
            weights=(tensor("", element_type, 2, 3),),
            weight_count=1,
            problems=problems,
        )

    @pytest.mark.parametrize(
        ("array", "problems"),
        [
            (numpy.zeros(2, [("O", "<f4"), ("b", "<i8", (2,))]), ()),
            (numpy.zeros(2, [("a", "<M8[ns]"), ("été", "S7")]), ()),
            (numpy.zeros(2, [("a", "<f4"), ("b", "O")]), (RUNS_CODE,)),
            (numpy.zeros(2, [("a", "O", (2,))]), (RUNS_CODE,)),
            (numpy.zeros(2, [("a", [("b", "O")])]), (MAYBE_OBJECTS_OF_ONE,)),
        ],
    )
    def test_arrays_of_fields_tell_whether_they_are_pickled(self, array: Any, problems: tuple[str, ...]) -> None:
        assert signature_of(numpy_file(array)).problems == problems

    @pytest.mark.parametrize("written", [rb"'\x4f'", b"('O')", b'"O"', b"'i4,O'", b"'object'"])
    def test_an_array_that_hides_its_type_is_said_to_be_uncertain(self, written: bytes) -> None:
        header = b"{'descr': " + written + b", 'fortran_order': False, 'shape': (1,), }\n"
        data = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + pickle.dumps([None])
        assert signature_of(data).problems == (MAYBE_OBJECTS_OF_ONE,)

    @pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
    def test_an_archive_of_arrays_tells_which_are_pickled(self, save: Callable[..., None]) -> None:
        file = io.BytesIO()
        save(file, weights=numpy.zeros(5), labels=numpy.array([{}, None]), more=numpy.array([None]))
        signature = signature_of(file.getvalue(), "m.npz")
        problem = (
            "It has arrays that hold pickled objects, the first in 'labels.npy': loading those runs code that is in it."
            " Load them only from those whom you trust."
        )
        assert (signature.format, signature.problems) == ("numpy", (problem,))

    def test_an_archive_of_arrays_that_can_not_be_read_is_said_to_be_uncertain(self) -> None:
        data = zip_of({"a.npy": numpy_file([1]), "b.npy": numpy_file([None])}, zipfile.ZIP_BZIP2)
        assert signature_of(data, "m.npz").problems == (
            "Whether its array in 'a.npy' holds pickled objects, which run code when they are loaded, is unknown.",
        )

    def test_of_many_arrays_the_first_are_searched(self) -> None:
        data = zip_of({f"{i:03}.npy": numpy_file([1]) for i in range(limits.ARRAYS + 1)})
        assert signature_of(data, "m.npz").problems == ("Only its first 100 arrays were searched for pickled objects.",)

    def test_a_tar_whose_first_file_is_hdf5_is_not_taken_for_it(self) -> None:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo("a.h5")
            member.size = len(HDF5)
            archive.addfile(member, io.BytesIO(HDF5))
        assert read(file.getvalue(), "a.tar") is None

    def test_a_model_that_is_read_comes_before_what_is_only_recognized(self) -> None:
        members = {
            "a.pkl": pickle.dumps([]),
            "a.npy": numpy_file([1]),
            "m/model.onnx": onnx_model().SerializeToString(),
        }
        signature = signature_of(zip_of(members))
        assert (signature.format, signature.problems) == ("onnx", ())

    @pytest.mark.parametrize(
        "data", [b"", b"\x80", b"\x80\x04", b"\x80\x09}.", b"\x80\x02\xff", bytes(600), b"weights"]
    )
    def test_other_bytes_are_nothing(self, data: bytes) -> None:
        assert read(data, "weights.bin") is None


UNREAD = (
    "The ZIP has members that were not looked into, as they are encrypted or compressed with another method than"
    " deflate"
)


class TestZip:
    def test_the_shallowest_that_is_whole_is_read_and_others_are_told(self) -> None:
        members = {
            "a.xml": IR.encode(),
            "z/model.xml": IR.replace("image", "complete").encode(),
            "z/model.bin": WEIGHTS,
            "z/z/model.xml": IR.encode(),
            "z/z/model.bin": WEIGHTS,
        }
        signature = signature_of(zip_of(members))
        assert signature.file_name == "z/model.xml"
        assert signature.inputs[0].name == "complete"
        assert signature.problems == ("The ZIP holds more models; only this one was read.",)

    @pytest.mark.parametrize(
        ("names", "model"),
        [
            ("openvino_detokenizer openvino_tokenizer openvino_model", "openvino_model"),
            ("openvino_tokenizer openvino_model_with_a_long_name", "openvino_model_with_a_long_name"),
            ("a/openvino_model tokenizer", "a/openvino_model"),
            ("text_encoder/openvino_model vae_decoder/openvino_model unet/openvino_model", "unet/openvino_model"),
            ("vocoder model_of_speech", "model_of_speech"),
            ("tokenizer", "tokenizer"),
            ("aa b", "b"),
            ("b a", "a"),
            ("d/a deep", "deep"),
            ("vae_tokenizer vae", "vae"),
            ("a_evaluated b_vaerified_model", "a_evaluated"),
            ("lora/a z", "z"),
            ("audio_encoder decoder_model_merged embed_tokens vision_encoder", "decoder_model_merged"),
            ("encoder_model decoder_model speaker_encoder", "decoder_model"),
            ("preprocess segmentation_model postprocessing", "segmentation_model"),
        ],
    )
    @pytest.mark.parametrize("suffix", [".xml", ".onnx"])
    def test_the_model_comes_before_what_serves_it_then_the_shortest_path(
        self, names: str, model: str, suffix: str
    ) -> None:
        data = IR.encode() if suffix == ".xml" else onnx_model().SerializeToString()
        members = {f"{name}{suffix}": data for name in names.split()}
        if suffix == ".xml":
            members |= {f"{name}.bin": WEIGHTS for name in names.split()}
        signature = signature_of(zip_of(members))
        assert signature.file_name == model + suffix
        more = ("The ZIP holds more models; only this one was read.",)
        assert signature.problems == (more if len(names.split()) > 1 else ())

    def test_a_model_without_its_weights_is_still_the_model(self) -> None:
        members = {"model.xml": IR.encode(), "tokenizer.xml": IR.encode(), "tokenizer.bin": WEIGHTS}
        signature = signature_of(zip_of(members))
        assert signature.file_name == "model.xml"
        assert "Its weights, the file model.bin, are missing." in signature.problems

    def test_parts_of_a_model_are_not_taken_for_more_models(self) -> None:
        part = safetensors({"a": ("F32", [2], 8)})
        names = [f"m/model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
        signature = signature_of(zip_of(dict.fromkeys(names, part)))
        problem = "It is one of 3 parts of a model; only this part was read."
        assert (signature.file_name, signature.problems) == (names[0], (problem,))
        signature = signature_of(zip_of(dict.fromkeys([*names, "m/vae.safetensors"], part)))
        assert signature.problems == (problem, "The ZIP holds more models; only this one was read.")
        assert signature_of(part, "model-00002-of-00003.safetensors").problems == (problem,)
        assert signature_of(part, "model-00001-of-00001.safetensors").problems == ()

    def test_names_promise_nothing(self) -> None:
        members = {
            "__MACOSX/._model.onnx": b"\0\x05\x16\x07",
            "annotation.xml": b"<annotation/>",
            "a.safetensors": b"x",
            "deep/er/model.ONNX": onnx_model().SerializeToString(),
        }
        signature = signature_of(zip_of(members))
        assert (signature.format, signature.file_name, signature.problems) == ("onnx", "deep/er/model.ONNX", ())

    def test_what_is_only_called_a_model_is_a_problem(self) -> None:
        signature = signature_of(zip_of({"b/model.onnx": b"x", "a.safetensors": b"y"}))
        assert (signature.format, signature.problems) == ("safetensors", ("It is no safetensors.",))

    def test_without_a_model_there_is_no_schema(self) -> None:
        assert read(zip_of({"a.txt": b"x", "a.xml": b"<a/>", "folder.onnx/": b""})) is None
        assert read(zip_of({})) is None

    def test_members_that_are_not_compressed_are_read_where_they_are(self) -> None:
        weights = [raw_weight(str(i), TensorProto.FLOAT, [MIB], 4 * MIB) for i in range(3)]
        data = zip_of({"first": b"x", "m.onnx": onnx_model(weights=weights).SerializeToString()}, zipfile.ZIP_STORED)
        store = OneObject(data)
        signature = read(data, store=store)
        assert signature is not None
        assert (signature.weight_count, signature.problems) == (3, ())
        assert store.bytes_read < MIB

    def test_compressed_members_are_read_through(self) -> None:
        weights = [raw_weight(str(i), TensorProto.FLOAT, [MIB], 4 * MIB) for i in range(3)]
        signature = signature_of(zip_of({"m.onnx": onnx_model(weights=weights).SerializeToString()}))
        assert (signature.weight_count, len(signature.outputs), signature.problems) == (3, 1, ())

    @pytest.mark.parametrize(
        "name", ["../../model.onnx", "/model.onnx", "a\nb.onnx", "\u202eevil.onnx", "x" * 5000 + ".onnx"]
    )
    def test_odd_names_are_names(self, name: str) -> None:
        signature = signature_of(zip_of({name: onnx_model().SerializeToString()}))
        assert signature.format == "onnx"
        assert len(signature.file_name) <= limits.TEXT_LENGTH

    def test_an_encrypted_model_is_said_to_be_unread(self) -> None:
        data = bytearray(zip_of({"model.onnx": onnx_model().SerializeToString()}))
        for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(magic) + at] |= 1
        signature = signature_of(bytes(data))
        assert (signature.format, signature.problems) == ("", (f"{UNREAD}: 'model.onnx'.",))

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    @pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.pt", "model.pkl"])
    def test_a_model_that_is_compressed_otherwise_is_said_to_be_unread(self, method: int, name: str) -> None:
        signature = signature_of(zip_of({name: onnx_model().SerializeToString(), "read.me": b"x"}, method))
        assert (signature.format, signature.problems) == ("", (f"{UNREAD}: {name!r}.",))

    def test_a_model_that_is_read_is_told_beside_one_that_is_not(self) -> None:
        data = zip_of({"m/a.onnx": b"x", "m/b.onnx": b"x"}, zipfile.ZIP_LZMA)
        file = io.BytesIO(data)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("m/model.onnx", onnx_model().SerializeToString())
            archive.writestr("m/weights.bin", b"x" * 100, zipfile.ZIP_BZIP2)
        signature = signature_of(file.getvalue())
        assert (signature.format, signature.file_name) == ("onnx", "m/model.onnx")
        assert signature.problems == (f"{UNREAD}: 'm/a.onnx', and 1 more.",)

    def test_a_damaged_member_is_a_problem(self) -> None:
        data = bytearray(zip_of({"model.onnx": os.urandom(2 * MIB)}))
        data[data.index(b"model.onnx") + 500 : data.index(b"model.onnx") + 900] = bytes(400)
        assert len(signature_of(bytes(data)).problems) == 1

    def test_a_stored_member_that_should_reach_past_the_end_is_none(self) -> None:
        data = bytearray(zip_of({"model.onnx": onnx_model().SerializeToString()}, zipfile.ZIP_STORED))
        at = data.index(b"PK\x01\x02")
        data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
        signature = read(bytes(data))
        assert signature is None or signature.problems

    @pytest.mark.parametrize("cut", [1, 22, 100])
    def test_a_cut_zip_is_none(self, cut: int) -> None:
        assert read(zip_of(geti_deployment())[:-cut], media_type="application/zip") is None


class TestCost:
    @pytest.mark.parametrize("data", [os.urandom(1024), b"weights", bytes(5000), b"PK", b"{}", b"\x08\x01"])
    def test_what_is_of_no_known_format_is_not_read(self, data: bytes) -> None:
        store = OneObject(data)
        assert read(data, "model.bin", store=store) is None or data[:1] == b"\x08"
        assert store.reads == 0

    def test_a_deployment_takes_few_reads(self) -> None:
        data = zip_of(geti_deployment(weights=WEIGHTS + os.urandom(10 * MIB)))
        store = OneObject(data)
        assert read(data, store=store) is not None
        assert store.reads <= 6
        assert store.bytes_read < 2 * MIB


def billion_laughs() -> bytes:
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    return f'<?xml version="1.0"?><!-- <net > --><!DOCTYPE net [<!ENTITY l0 "lol">{entities}]><net>&l9;</net>'.encode()


def quadratic_blowup() -> bytes:
    return f'<!-- <net > --><!DOCTYPE net [<!ENTITY a "{"a" * 50_000}">]><net>{"&a;" * 50_000}</net>'.encode()


HOSTILE: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "billion laughs": ("model.xml", billion_laughs),
    "quadratic blowup": ("model.xml", quadratic_blowup),
    "external entity": (
        "model.xml",
        lambda: (
            b'<?xml version="1.0"?><!DOCTYPE net [<!ENTITY x SYSTEM "file:///etc/passwd">]><net name="&x;">&x;</net>'
        ),
    ),
    "external document type": (
        "model.xml",
        lambda: b'<?xml version="1.0"?><!DOCTYPE net SYSTEM "http://127.0.0.1:1/"><net ></net>',
    ),
    "elements inside one another": ("model.xml", lambda: b"<net version='11'>" + b"<a>" * 600_000),
    "too many elements": ("model.xml", lambda: b"<net version='11'>" + b"<a/>" * 600_000),
    "elements of as many names": (
        "model.xml",
        lambda: b"<net version='11'>" + b"".join(b"<a%d/>" % i for i in range(200_000)),
    ),
    "a huge attribute": ("model.xml", lambda: b'<net name="' + b"a" * (100 * MIB) + b'"/>'),
    "a huge name": ("model.xml", lambda: b"<net version='11'><" + b"a" * (20 * MIB)),
    "a huge comment": ("model.xml", lambda: b"<net version='11'><!--" + b"-a" * (10 * MIB)),
    "a huge text": ("model.xml", lambda: b"<net version='11'>" + b"a" * (100 * MIB) + b"</net>"),
    "many attributes": (
        "model.xml",
        lambda: b"<net version='11' " + b" ".join(b"a%d=''" % i for i in range(100_000)) + b"/>",
    ),
    "an odd encoding": ("model.xml", lambda: b"<?xml version='1.0' encoding='utf-7'?><net ></net>"),
    "an unknown encoding": ("model.xml", lambda: b"<?xml version='1.0' encoding='idna'?><net ></net>"),
    "huge numbers": (
        "model.xml",
        lambda: (
            b'<net version="11"><layers><layer type="Const"><data size="'
            + b"9" * 9000
            + b'" offset="-1"/></layer></layers></net>'
        ),
    ),
    "too many nodes": ("model.onnx", lambda: _in_graph(b"\x0a\x02\x0a\x00" * 600_000)),
    "too many weights": ("model.onnx", lambda: _in_graph(b"\x2a\x04\x08\x01\x10\x01" * 600_000)),
    "weights of as many names": (
        "model.onnx",
        lambda: _in_graph(b"".join(b"\x2a\x0a\x42\x08%08d" % i for i in range(200_000))),
    ),
    "too many inputs": ("model.onnx", lambda: _in_graph(b"\x5a\x03\x0a\x01a" * 600_000)),
    "too many dimensions": ("model.onnx", lambda: _in_graph(_field(b"\x2a", _field(b"\x0a", b"\x7f" * 600_000)))),
    "a name of 50 MiB": ("model.onnx", lambda: _in_graph(_field(b"\x5a", _field(b"\x0a", b"\xff" * (50 * MIB))))),
    "too many metadata": ("model.onnx", lambda: _in_graph(b"") + b"\x72\x06\x0a\x01a\x12\x01b" * 600_000),
    "a varint without end": ("model.onnx", lambda: b"\x08\x07\x3a" + b"\xff" * 100),
    "graphs inside one another": ("model.onnx", lambda: nested(b"\x0a", b"\x2a", b"\x32")),
    "types inside one another": ("model.onnx", lambda: nested(b"\x22", b"\x0a", start=b"\x5a\x12")),
    "an array of arrays": ("m.safetensors", lambda: safetensors_file(b'{"a":[' + b"[]," * (2 * MIB) + b"]}")),
    "arrays inside one another": ("m.safetensors", lambda: safetensors_file(b'{"a":' + b"[" * (4 * MIB))),
    "objects inside one another": ("m.safetensors", lambda: safetensors_file(b'{"a":' * MIB)),
    "too many metadata entries": (
        "m.safetensors",
        lambda: safetensors_file(b'{"__metadata__":{' + b'"":"",' * 600_000 + b'"":""}}'),
    ),
    "as many tensors as fit": (
        "m.safetensors",
        lambda: safetensors_file(
            b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}'
            + b',"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}' * 100_000
            + b"}",
            bytes(4),
        ),
    ),
    "an array of many strings": (
        "m.gguf",
        lambda: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**60) + bytes(80 * MIB),
    ),
    "arrays of GGUF inside one another": (
        "m.gguf",
        lambda: (
            b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"a" + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 9999
        ),
    ),
    "an array of many arrays": (
        "m.gguf",
        lambda: (
            b"GGUF"
            + struct.pack("<IQQQ", 3, 0, 1, 1)
            + b"a"
            + struct.pack("<IIQ", 9, 9, 2**60)
            + struct.pack("<IQ", 0, 0) * 600_000
        ),
    ),
    "too many tensors of GGUF": (
        "m.gguf",
        lambda: (
            b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0) + struct.pack("<QBIQIQ", 1, 97, 1, 2**63, 0, 2**63) * 600_000
        ),
    ),
    "a name of GGUF of 50 MiB": (
        "m.gguf",
        lambda: b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 50 * MIB) + bytes(50 * MIB) + struct.pack("<I", 99),
    ),
    "too many graphs": (
        "m.tflite",
        # The field of a table leads to a vector of references to themselves, each of which is an empty table.
        lambda: struct.pack("<I4sHHHHHHiII", 20, b"TFL3", 10, 8, 0, 0, 4, 0, 12, 4, 4 * MIB) + bytes(16 * MIB),
    ),
    "a header of wide characters": (
        "m.safetensors",
        lambda: safetensors_file(b'{"' + b"\xf0\x9d\x95\x8f" * (2 * MIB - 100)),
    ),
    "a header over the limit": ("m.safetensors", lambda: safetensors_file(b"{" + b" " * (20 * MIB))),
}


HARMLESS = {"many attributes", "huge numbers", "a name of 50 MiB"}


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _in_graph(content: bytes) -> bytes:
    return b"\x08\x07" + _field(b"\x3a", content)


def nested(*tags: bytes, start: bytes = b"") -> bytes:
    content = bytes(300)
    for _ in range(1000):
        for tag in reversed(tags):
            content = _field(tag, content)
    for i in reversed(range(len(start))):
        content = _field(start[i : i + 1], content)
    return _in_graph(content)


class TestHostileFiles:
    @pytest.mark.parametrize("what", HOSTILE)
    def test_it_costs_little_and_what_is_kept_is_small(self, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "SECONDS", 2.0)  # the memory is watched, which takes time as well
        file_name, make = HOSTILE[what]
        data = memoryview(make())
        with bounded(mebibytes=64):
            signature = signature_of(data, file_name)
        assert bool(signature.problems) == (what not in HARMLESS)
        if what in {"too many nodes", "too many metadata"}:
            assert signature.problems[0].startswith("Only")
        assert len(repr(signature)) < 2 * limits.SIGNATURE_BYTES
        if "<!DOCTYPE" in str(bytes(data[:200])):
            assert signature.problems == ("It has a document type or entities, which are not read.",)

    @pytest.mark.parametrize("what", ["billion laughs", "a huge attribute", "too many weights", "an array of arrays"])
    def test_nor_inside_a_zip(self, what: str) -> None:
        file_name, make = HOSTILE[what]
        data = zip_of({file_name: make()})
        with bounded(mebibytes=64):
            assert signature_of(data).problems

    def test_a_bomb_is_not_decompressed_to_its_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "INFLATED_BYTES", 8 * MIB)
        weights = [raw_weight("w", TensorProto.FLOAT, [5 * MIB], 20 * MIB)]
        store = OneObject(zip_of({"model.onnx": onnx_model(weights=weights).SerializeToString()}))
        with bounded(mebibytes=16):
            signature = read(store.data, store=store)
        assert signature is not None
        assert signature.weight_count == 1
        assert signature.problems == ("Only its first 8 MiB were decompressed and read.",)

    def test_texts_are_cut_where_the_api_says(self) -> None:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["d" * 1000, "e" * 1001])]
        signature = signature_of(onnx_model(inputs=inputs).SerializeToString())
        assert signature.inputs == (tensor("x", "FLOAT", "d" * 1000, "e" * 999 + "…"),)

    def test_more_that_is_wrong_than_is_kept_is_told(self) -> None:
        data = safetensors({str(i): ("F32", [2], 4) for i in range(30)})
        problems = signature_of(data).problems
        assert len(problems) == limits.PROBLEMS
        assert problems[-1] == "More is wrong with it than is told here."

    def test_texts_are_fit_for_storing(self) -> None:
        data = safetensors({"a\0b": ("F32", [1], 4)}, {"x\0": "\ud800", "y": "z" * 100_000})
        signature = signature_of(data)
        assert signature.weights[0].name == "a\ufffdb"
        assert signature.problems == ("Its header has halves of surrogate pairs, which are no characters.",)
        assert signature.metadata == {"x\ufffd": "?", "y": "z" * 999 + "…"}

    def test_a_schema_fits_always(self) -> None:
        inputs = [helper.make_tensor_value_info("x" * 990 + str(i), 1, ["d" * 100] * 64) for i in range(100)]
        model = onnx_model(inputs=inputs, metadata={f"{'k' * 900}{i}": "v" * 1000 for i in range(300)})
        for i in range(150):
            model.opset_import.add(domain="o" * 900 + str(i), version=1)
        signature = signature_of(model.SerializeToString())
        assert (signature.inputs, signature.outputs, signature.metadata, signature.opsets) == ((), (), {}, {})
        assert signature.problems == (
            "Only the first 200 entries of its metadata are kept.",
            *(
                f"Its {what} are not kept: they would take over 64 KiB."
                for what in ("metadata", "inputs and outputs", "opsets")
            ),
        )

    def test_a_schema_comes_back_from_its_row_as_it_was(self) -> None:
        for data in (
            zip_of(geti_deployment()),
            onnx_model().SerializeToString(),
            safetensors({"a": ("F32", [1], 4)}),
            gguf(LLAMA, LLAMA_METADATA),
            TFLITE,
            pickle.dumps([]),
            zip_of({}) + b"more",
        ):
            signature = read(data, "model.zip", "application/zip" if data.startswith(b"PK") else "")
            assert rows._signature(rows._without_empty(asdict(signature))) == signature


ANY_FILE = st.sampled_from(
    [
        IR.encode(),
        onnx_model(metadata={"a": "b"}).SerializeToString(),
        safetensors({"a": ("F32", [2], 8), "b": ("I8", [1], 1)}, {"format": "pt"}),
        safetensors(AWQ),
        gguf(LLAMA, {"general.alignment": 32, "tokens": ["a"] * 20}),
        TFLITE,
        numpy_file([1.0]),
        zip_of(TORCH),
        zip_of(geti_deployment()),
        zip_of({"model.onnx": onnx_model().SerializeToString()}, zipfile.ZIP_STORED),
    ]
)
NAMES = st.sampled_from(
    ["model.bin", "model.xml", "model.onnx", "model.safetensors", "model.zip", "m.gguf", "m.tflite"]
)


@settings(max_examples=300)
@given(
    data=ANY_FILE,
    cut=st.integers(0, 6000),
    edits=st.lists(st.tuples(st.integers(0, 6000), st.binary(max_size=8)), max_size=4),
    name=NAMES,
)
def test_files_with_bytes_changed_or_cut_off_never_raise(
    data: bytes, cut: int, edits: list[tuple[int, bytes]], name: str
) -> None:
    for at, piece in edits:
        data = data[:at] + piece + data[at + len(piece) :]
    data = data[: max(len(data) - cut, 0)]
    for media_type in ("", "application/zip"):
        signature = read(data, name, media_type)
        assert signature is None or rows._signature(asdict(signature)) == signature


@settings(max_examples=300)
@given(
    data=st.binary(max_size=2000),
    beginning=st.sampled_from([b"", b"<net ", b"\x08\x07\x3a", b"\x40\0\0\0\0\0\0\0{", b"PK\x03\x04"]),
    name=NAMES,
)
@example(data=b"", beginning=b"", name="model.zip")
def test_any_bytes_never_raise(data: bytes, beginning: bytes, name: str) -> None:
    read(beginning + data, name)
