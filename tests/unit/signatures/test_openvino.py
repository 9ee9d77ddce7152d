"""The signature of OpenVINO IR."""

import pytest

from registry_service.domain.signature import Signature, Tensor
from tests.model_files import (
    IR,
    WEIGHTS,
    geti_deployment,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import read, signature_of, tensor

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
    def test_a_deployment_of_geti_has_a_full_signature(self) -> None:
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
        assert signature.problems == ("The weights file ssd.bin is missing.",)

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
    def test_an_ir_in_utf_32_is_a_problem(self, encoding: str) -> None:
        signature = signature_of(ir().encode(encoding), "m.xml")
        assert (signature.format, signature.problems) == ("openvino", ("The encoding UTF-32 is not supported.",))

    @pytest.mark.parametrize(
        ("weights", "problem"),
        [
            (None, "The weights file model.bin is missing."),
            (WEIGHTS[:-1], "The weights need 876 bytes of model.bin, which has 875."),
        ],
    )
    def test_missing_or_truncated_weights_are_a_problem(self, weights: bytes | None, problem: str) -> None:
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
    def test_other_xml_has_no_signature(self, data: bytes) -> None:
        assert read(data, "model.xml") is None

    def test_a_tensor_has_the_first_of_its_names(self) -> None:
        signature = signature_of(ir(names='names="z\\,1,,b"').encode())
        assert signature.outputs == (tensor("b", "f32", 1, 4),)
        signature = signature_of(ir(names='names="a\\,1,b"').encode())
        assert signature.outputs == (tensor("a,1", "f32", 1, 4),)

    @pytest.mark.parametrize(
        ("names", "output"),
        [("", "relu"), ('names="out"', "out"), ('names="z"', "relu")],
    )
    def test_outputs_of_version_10_have_the_name_of_the_layer_that_feeds_them(self, names: str, output: str) -> None:
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

    def test_a_shape_without_dimensions_is_dynamic_in_version_11(self) -> None:
        for version, shape in (("10", ()), ("11", None)):
            (output,) = signature_of(ir(version=version).replace("<dim>1</dim><dim>4</dim>", "").encode()).outputs
            assert output.shape == shape

    def test_a_shape_of_many_digits_is_whole(self) -> None:
        shape = ",".join([f"1..{10**30}"] * 64)
        (found,) = signature_of(ir().replace('shape="[1, 4]"', f'shape="{shape}"').encode()).inputs
        assert found.shape == (f"1..{10**30}",) * 64

    @pytest.mark.parametrize(
        ("version", "found"),
        [
            ("7", "IR version 7 is not supported"),
            ("6", "IR version 6 is not supported"),
            ("12", "IR version 12 is not supported"),
            ("", "The IR version is missing"),
        ],
    )
    def test_an_unsupported_version_is_a_problem(self, version: str, found: str) -> None:
        signature = signature_of(ir(version=version).encode(), "model.xml")
        problem = f"{found}; supported are versions 10 and 11."
        assert (signature.format, signature.inputs, signature.outputs) == ("openvino", (), ())
        assert signature.problems == (problem,)

    @pytest.mark.parametrize("cut", [600, 2000, len(IR) - 8])
    def test_the_signature_of_damaged_xml_is_kept(self, cut: int) -> None:
        signature = signature_of(IR.encode()[:cut], "model.xml")
        assert "The file is damaged: its XML is not well-formed." in signature.problems
        assert len(signature.inputs) == 1
