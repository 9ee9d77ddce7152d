"""Fields of models, and concurrent calls, for the tests of ModelService."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from modelregistry.v1 import model_pb2

from tests.registry import RunningRegistry

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
GIVEN_ID = "0123456789abcdef"
ALPHABETS = (range(0x20, 0x7F), range(0xA1, 0x250), range(0x4E00, 0x9FFF), range(0x1F300, 0x1F600))


def odd_text(length: int, seed: int = 0) -> str:
    """Random characters of one to four bytes."""
    dice = random.Random(seed)
    return "".join(chr(dice.choice(dice.choice(ALPHABETS))) for _ in range(length))


def struct(**values: Any) -> Value:
    message = Struct()
    message.update(values)
    return Value(struct_value=message)


def nothing_is_left(registry: RunningRegistry) -> bool:
    assert registry.count("models") == 0
    assert registry.count("unreferenced_objects") == 0
    assert registry.objects() == []
    return True


def run_together(number: int, call: Callable[[int], Any]) -> list[Any]:
    """Make this many concurrent calls, and return the answers or gRPC errors."""
    barrier = threading.Barrier(number)

    def one(index: int) -> Any:
        barrier.wait()
        try:
            return call(index)
        except grpc.RpcError as error:
            return error

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(one, range(number)))


def everything() -> dict[str, Any]:
    """Return all client-supplied fields with values other than their defaults."""
    return {
        "id": GIVEN_ID,
        "name": odd_text(5000, 1),
        "version": odd_text(5000, 2),
        "project_id": "p-1",
        "project_name": "Straßen ☃",
        "precisions": ["fp16", "int8"],
        "target_device": "GPU",
        "target_device_type": "edge\r\n\tbox",
        "format": "onnx",
        "origin": "Geti",
        "category": "Detection",
        "architecture": "YOLOX-S",
        "description": "# YOLOX\n\n*Markdown*, é€😀" + "x" * 60_000,
        "score": 0.1 + 0.2,
        "overview": struct(
            nested={"list": [1, [2.5, None, True], {}], "": "empty key", "☃": "\u202e'\"\\"}, huge=1e300, tiny=5e-324
        ),
        "optimization_capabilities": Value(string_value="is a text"),
        "labels": ListValue(values=[Value(string_value="cat"), struct(name="dog", id=7)]),
        "metrics": {"mAP50": 0.71, "whole": 3.0, "a.b c/ü": -1e-300, "big": 1.7976931348623157e308},
        "tags": {"team": "vision", "": ""} | {f"k{i}": odd_text(9, i) for i in range(20)},
        "provenance": model_pb2.Provenance(
            source_repository="https://example.org/r.git",
            source_commit="0" * 40,
            training_run="run 7",
            datasets=[
                model_pb2.Dataset(name="coco", uri="s3://coco", digest="sha256:00ff"),
                model_pb2.Dataset(uri="file:///only-a-uri"),
            ],
            parent_model_ids=["another-model-0001", "another-model-0002"],
            framework="pytorch",
            framework_version="2.9",
            hyperparameters=struct(lr=0.001, layers=[64, 32], nested={"on": True, "off": None}).struct_value,
            environment={"python": "3.12.4"},
            seed=-(2**63),
        ),
    }


def with_fields(**fields: Any) -> dict[str, Any]:
    given = everything() | fields
    del given["tags"][""]  # maps accept no empty keys
    return given


def in_spec(field: str) -> str:
    """Return the path of a field from the root of a registration."""
    return f"spec.{field}" if field.startswith("artifact") else f"spec.model.{field}"
