"""The signature of ONNX."""

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from registry_service.domain.signature import Signature, Tensor
from tests.model_files import (
    onnx_model,
    raw_weight,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import MIB, OneObject, read, signature_of, tensor, varint


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
    def test_a_model_has_a_full_signature(self) -> None:
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

    def test_inputs_that_are_weights_are_not_inputs(self) -> None:
        inputs = [
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [4]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT16, None),
        ]
        signature = signature_of(onnx_model(inputs=inputs).SerializeToString())
        assert signature.inputs == (Tensor(name="x", element_type="FLOAT16", shape=None),)

    def test_inputs_may_be_no_tensors(self) -> None:
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
            (bytes(4111), ("The weights need 4112 bytes of the file weights/w.data, which has 4111.",)),
            (None, ("The weights are in the file weights/w.data, which is missing.",)),
        ],
    )
    def test_weights_in_another_file_are_checked(self, data: bytes | None, problems: tuple[str, ...]) -> None:
        members = {"m/model.onnx": self.external()} | ({} if data is None else {"m/weights/w.data": data})
        signature = signature_of(zip_of(members))
        assert signature.problems == problems
        assert signature.precision == ("fp32",)

    @pytest.mark.parametrize("location", ["/etc/passwd", "../w", "a/../../w", ".."])
    def test_weights_outside_of_the_folder_are_a_problem_wherever_they_are(self, location: str) -> None:
        members = {"m/model.onnx": self.external(location), "w": bytes(5000), "/etc/passwd": bytes(5000)}
        problem, *_ = signature_of(zip_of(members)).problems
        assert problem == f"The weights are in the file {location}, which is outside the model's folder."

    def test_weights_in_a_file_without_a_name_are_a_problem(self) -> None:
        problems = signature_of(zip_of({"m/model.onnx": self.external("")})).problems
        assert problems == ("The weights are in another file, but the model does not name it.",)

    def test_weights_of_another_size_than_their_shape_are_a_problem_in_another_file_too(self) -> None:
        data = self.external().replace(b"\x12\x0216", b"\x12\x0212")
        signature = signature_of(zip_of({"m/model.onnx": data, "m/weights/w.data": bytes(5000)}))
        assert signature.problems == ("The weight 'w' has 12 bytes of data, but its shape needs 16.",)

    @pytest.mark.parametrize("place", EXTERNAL_PLACES)
    def test_weights_in_another_file_are_checked_wherever_they_are_named(self, place: str) -> None:
        model = onnx_model(weights=[])
        EXTERNAL_PLACES[place](model)
        for is_there, problems in ((True, ()), (False, ("The weights are in the file w.data, which is missing.",))):
            members = {"m/model.onnx": model.SerializeToString()} | ({"m/w.data": bytes(8192)} if is_there else {})
            signature = signature_of(zip_of(members))
            assert signature.problems == problems
            assert (signature.weight_count, signature.precision) == (
                (1, ("fp32",)) if place != "indices" else (1, ("fp16",))
            )

    def test_each_of_many_other_files_is_checked(self) -> None:
        weights = [external_weight(f"w{i}") for i in range(300)]
        members = {"model.onnx": onnx_model(weights=weights).SerializeToString()}
        members |= {f"w{i}": bytes(8192) for i in range(300) if i != 299}
        assert signature_of(zip_of(members)).problems == ("The weights are in the file w299, which is missing.",)

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

    def test_an_unknown_type_is_named(self) -> None:
        weights = [raw_weight("w", TensorProto.FLOAT, [4], 16), onnx.TensorProto(name="v", data_type=99, dims=[9])]
        signature = signature_of(onnx_model(weights=weights).SerializeToString())
        assert (signature.precision, signature.problems) == (("fp32", "type 99"), ())

    def test_weights_of_another_size_than_their_shape_are_a_problem(self) -> None:
        weight = raw_weight("w", TensorProto.FLOAT, [4], 16)
        weight.dims[0] = 5
        problems = signature_of(onnx_model(weights=[weight]).SerializeToString()).problems
        assert problems == ("The weight 'w' has 16 bytes of data, but its shape needs 20.",)

    def test_two_gibibytes_of_weights_are_skipped(self) -> None:
        head = onnx_model(weights=[]).SerializeToString()
        graph = onnx.ModelProto.FromString(head).graph
        start = head.index(b"\x3a")
        size = 2**31
        weight = b"\x08" + varint(size // 4) + b"\x10\x01\x42\x01w\x4a" + varint(size)
        before = b"\x2a" + varint(len(weight) + size) + weight
        after = graph.SerializeToString()
        beginning = head[:start] + b"\x3a" + varint(len(before) + size + len(after)) + before
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

    def test_a_file_that_is_only_named_onnx_is_a_problem(self) -> None:
        assert signature_of(b"weights", "model.onnx").problems == ("The file is not ONNX.",)
        assert signature_of(b"", "model.onnx").problems == ("The file is not ONNX.",)

    def test_a_file_with_the_same_first_bytes_has_no_signature(self) -> None:
        assert read(b"\x08\x07\x12\xff" + bytes(100)) is None

    @pytest.mark.parametrize("cut", [12, 30, 60])
    def test_the_signature_of_a_truncated_file_is_kept(self, cut: int) -> None:
        signature = signature_of(onnx_model().SerializeToString()[:-cut])
        assert signature.problems == ("The file is truncated.",)
        assert signature.producer == "pytorch 2.5.1"
