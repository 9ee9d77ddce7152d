"""The signature of safetensors."""

import json
import re

import pytest

from registry_service.domain.signature import Signature
from tests.model_files import (
    safetensors,
    safetensors_file,
)
from tests.unit.signatures.helpers import signature_of, tensor

F32_PAIR = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'


class TestSafetensors:
    def test_a_file_has_a_full_signature(self) -> None:
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

    def test_a_header_may_be_padded_with_spaces(self) -> None:
        assert signature_of(safetensors_file(b"{}      ")).problems == ()

    @pytest.mark.parametrize(
        ("offsets", "problem"),
        [
            ("[0, 8], [4, 12]", "Tensors overlap."),
            ("[0, 8], [8, 17]", "Tensors extend beyond the end of the file, which has 16 bytes of data."),
            ("[0, 8], [-8, 0]", "Tensors have invalid offsets."),
            ("[0, 8], [16, 8]", "Tensors have invalid offsets."),
            ("[0, 8], [8, 15]", "The tensor 'b' has 7 bytes of data, which does not match its shape."),
        ],
    )
    def test_missing_data_is_a_problem(self, offsets: str, problem: str) -> None:
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
        assert problems[0].startswith("The header is")

    @pytest.mark.parametrize("metadata", ["null", "{}", '{"format":"pt"}'])
    def test_metadata_may_be_null(self, metadata: str) -> None:
        signature = signature_of(safetensors_file(f'{{"__metadata__":{metadata},"a":{F32_PAIR}}}'.encode(), bytes(8)))
        assert (signature.weight_count, signature.problems) == (1, ())

    @pytest.mark.parametrize(
        ("entries", "size", "problem"),
        [
            ('"a":[0,8],"b":[12,20]', 20, "The data has a gap: bytes 8 to 12 belong to no tensor."),
            ('"a":[4,12]', 12, "The data has a gap: bytes 0 to 4 belong to no tensor."),
            ('"b":[8,16],"a":[0,8]', 17, "1 bytes follow the last tensor."),
            ("", 3, "3 bytes follow the last tensor."),
            ('"a":[0,8],"a":[8,16]', 16, "Two header entries have the name 'a'."),
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
    def test_other_keys_of_a_tensor_are_ignored(self, entry: str) -> None:
        data = bytes(0 if ":[0,0]" in entry else 8)
        assert signature_of(safetensors_file(f'{{"a":{entry}}}'.encode(), data)).problems == ()

    @pytest.mark.parametrize(
        ("element_type", "shape", "size", "problem"),
        [
            ("Q8", [8], 8, "The tensor 'a' has the unknown type 'Q8'."),
            ("f32", [2], 8, "The tensor 'a' has the unknown type 'f32'."),
            ("F4", [3], 2, "The tensor 'a' does not end on a byte boundary."),
        ],
    )
    def test_types_that_the_library_refuses_are_a_problem(
        self, element_type: str, shape: list[int], size: int, problem: str
    ) -> None:
        assert signature_of(safetensors({"a": (element_type, shape, size)})).problems == (problem,)

    @pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 3])
    def test_a_header_that_is_longer_than_the_file_is_a_problem(self, length: int) -> None:
        signature = signature_of(safetensors_file(b"{}", length=length), "model.safetensors")
        assert signature.problems == (f"The header length is {length} bytes, more than the file has.",)

    def test_as_many_weights_as_fit_are_kept(self) -> None:
        signature = signature_of(safetensors({f"{'layer' * 30}.{i}": ("F32", [1], 4) for i in range(2000)}, {"a": "b"}))
        assert (signature.weight_count, len(signature.weights)) == (2000, 250)
        assert (signature.metadata, signature.problems) == ({"a": "b"}, ())
        assert len(signature_of(safetensors({str(i): ("F32", [1], 4) for i in range(1001)})).weights) == 1000
