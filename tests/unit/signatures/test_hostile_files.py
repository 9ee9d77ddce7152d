"""The cost of reading a file, and the limits that hostile files meet."""

import os
import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict

import pytest
from onnx import TensorProto, helper

from registry_service.signatures import limits
from registry_service.storage.sql import rows
from tests.model_files import (
    TFLITE,
    WEIGHTS,
    geti_deployment,
    gguf,
    onnx_model,
    raw_weight,
    safetensors,
    safetensors_file,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import MIB, OneObject, bounded, read, signature_of, tensor, varint
from tests.unit.signatures.samples import LLAMA, LLAMA_METADATA


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
    return tag + varint(len(content)) + content


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
    def test_reading_is_cheap_and_the_signature_small(self, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "SECONDS", 2.0)  # measuring the memory takes time too
        file_name, make = HOSTILE[what]
        data = memoryview(make())
        with bounded(mebibytes=64):
            signature = signature_of(data, file_name)
        assert bool(signature.problems) == (what not in HARMLESS)
        if what in {"too many nodes", "too many metadata"}:
            assert signature.problems[0].startswith(("Only the first ", "Reading stopped after "))
        assert len(repr(signature)) < 2 * limits.SIGNATURE_BYTES
        if "<!DOCTYPE" in str(bytes(data[:200])):
            assert signature.problems == ("Document type declarations and entities are not supported.",)

    @pytest.mark.parametrize("what", ["billion laughs", "a huge attribute", "too many weights", "an array of arrays"])
    def test_reading_is_cheap_inside_a_zip_too(self, what: str) -> None:
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
        assert signature.problems == ("Only the first 8 MiB were decompressed and read.",)

    def test_texts_are_cut_at_the_limit_of_the_api(self) -> None:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["d" * 1000, "e" * 1001])]
        signature = signature_of(onnx_model(inputs=inputs).SerializeToString())
        assert signature.inputs == (tensor("x", "FLOAT", "d" * 1000, "e" * 999 + "…"),)

    def test_too_many_problems_are_mentioned(self) -> None:
        data = safetensors({str(i): ("F32", [2], 4) for i in range(30)})
        problems = signature_of(data).problems
        assert len(problems) == limits.PROBLEMS
        assert problems[-1] == "There are more problems than listed here."

    def test_texts_can_be_stored(self) -> None:
        data = safetensors({"a\0b": ("F32", [1], 4)}, {"x\0": "\ud800", "y": "z" * 100_000})
        signature = signature_of(data)
        assert signature.weights[0].name == "a\ufffdb"
        assert signature.problems == ("The header has lone surrogates, which are not characters.",)
        assert signature.metadata == {"x\ufffd": "?", "y": "z" * 999 + "…"}

    def test_a_signature_always_fits(self) -> None:
        inputs = [helper.make_tensor_value_info("x" * 990 + str(i), 1, ["d" * 100] * 64) for i in range(100)]
        model = onnx_model(inputs=inputs, metadata={f"{'k' * 900}{i}": "v" * 1000 for i in range(300)})
        for i in range(150):
            model.opset_import.add(domain="o" * 900 + str(i), version=1)
        signature = signature_of(model.SerializeToString())
        assert (signature.inputs, signature.outputs, signature.metadata, signature.opsets) == ((), (), {}, {})
        assert signature.problems == (
            "Only the first 200 metadata entries are kept.",
            *(
                f"The {what} are not kept: the signature would exceed 64 KiB."
                for what in ("metadata", "inputs and outputs", "opsets")
            ),
        )

    def test_a_signature_survives_its_row(self) -> None:
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


class TestCost:
    @pytest.mark.parametrize("data", [os.urandom(1024), b"weights", bytes(5000), b"PK", b"{}", b"\x08\x01"])
    def test_a_file_of_an_unknown_format_is_not_read(self, data: bytes) -> None:
        store = OneObject(data)
        assert read(data, "model.bin", store=store) is None or data[:1] == b"\x08"
        assert store.reads == 0

    def test_a_deployment_takes_few_reads(self) -> None:
        data = zip_of(geti_deployment(weights=WEIGHTS + os.urandom(10 * MIB)))
        store = OneObject(data)
        assert read(data, store=store) is not None
        assert store.reads <= 6
        assert store.bytes_read < 2 * MIB
