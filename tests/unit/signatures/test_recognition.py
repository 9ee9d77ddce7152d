"""Formats that are recognized without reading inputs and outputs."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from registry_service.domain.signature import Signature
from registry_service.signatures import limits
from tests.model_files import (
    onnx_model,
)
from tests.stub_client import zip_of
from tests.unit.signatures.helpers import MIB, read, signature_of, tensor
from tests.unit.signatures.samples import TORCH, numpy_file

MAYBE_OBJECTS = "The arrays may contain pickled objects, which can run code when loaded."


MAYBE_OBJECTS_OF_ONE = "The array may contain pickled objects, which can run code when loaded."


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(832)


TORCH_BEFORE_ZIP = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2) + pickle.dumps(1001, protocol=2)


RUNS_CODE = "The file contains a pickle. Loading a pickle can run code: load only files that you trust."


class TestRecognized:
    """Formats without a reader."""

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    @pytest.mark.parametrize(
        "value", [{}, {"a": 1}, [1.0], (1, 2), "text", None, 7, 10**30, b"x", Signature(format="")]
    )
    def test_a_pickle_is_recognized_under_any_name(self, protocol: int, value: object) -> None:
        signature = signature_of(pickle.dumps(value, protocol=protocol), "weights.dat")
        assert (signature.format, signature.problems) == ("pickle", (RUNS_CODE,))

    @pytest.mark.parametrize(
        ("data", "file_name", "kind", "problems"),
        [
            (pickle.dumps({"a": 1}, protocol=0), "m.pkl", "pickle", (RUNS_CODE,)),
            (b"\x1f\x8b compressed", "m.joblib", "pickle", (RUNS_CODE,)),
            (TORCH_BEFORE_ZIP, "m.pth", "pytorch", (RUNS_CODE,)),
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
            (bytes(1000) + HDF5, "m.h5", "hdf5", ("The file is not HDF5.",)),
            (
                zip_of({"m/saved_model.pb": b"\x08\x01\x12\x00", "m/variables/variables.index": b""}),
                "",
                "tensorflow",
                (),
            ),
            (zip_of({"m/model.pt": zip_of(TORCH)}), "m.zip", "pytorch", (RUNS_CODE,)),
            (zip_of({"m/pytorch_model.bin": TORCH_BEFORE_ZIP, "m/config.json": b""}), "m.zip", "pytorch", (RUNS_CODE,)),
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
    def test_an_array_has_a_shape_and_no_precision(
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
    def test_arrays_of_fields_show_whether_they_are_pickled(self, array: Any, problems: tuple[str, ...]) -> None:
        assert signature_of(numpy_file(array)).problems == problems

    @pytest.mark.parametrize("written", [rb"'\x4f'", b"('O')", b'"O"', b"'i4,O'", b"'object'"])
    def test_an_array_that_hides_its_type_is_uncertain(self, written: bytes) -> None:
        header = b"{'descr': " + written + b", 'fortran_order': False, 'shape': (1,), }\n"
        data = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + pickle.dumps([None])
        assert signature_of(data).problems == (MAYBE_OBJECTS_OF_ONE,)

    @pytest.mark.parametrize("save", [numpy.savez, numpy.savez_compressed])
    def test_pickled_arrays_of_an_archive_are_named(self, save: Callable[..., None]) -> None:
        file = io.BytesIO()
        save(file, weights=numpy.zeros(5), labels=numpy.array([{}, None]), more=numpy.array([None]))
        signature = signature_of(file.getvalue(), "m.npz")
        problem = (
            "Arrays contain pickled objects, the first in 'labels.npy'. Loading a pickle can run code: load only files"
            " that you trust."
        )
        assert (signature.format, signature.problems) == ("numpy", (problem,))

    def test_an_archive_of_unreadable_arrays_is_uncertain(self) -> None:
        data = zip_of({"a.npy": numpy_file([1]), "b.npy": numpy_file([None])}, zipfile.ZIP_BZIP2)
        assert signature_of(data, "m.npz").problems == (
            "The array in 'a.npy' may contain pickled objects, which can run code when loaded.",
        )

    def test_only_the_first_of_many_arrays_are_searched(self) -> None:
        data = zip_of({f"{i:03}.npy": numpy_file([1]) for i in range(limits.ARRAYS + 1)})
        assert signature_of(data, "m.npz").problems == ("Only the first 100 arrays were searched for pickled objects.",)

    def test_a_tar_whose_first_file_is_hdf5_is_not_hdf5(self) -> None:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo("a.h5")
            member.size = len(HDF5)
            archive.addfile(member, io.BytesIO(HDF5))
        assert read(file.getvalue(), "a.tar") is None

    def test_a_model_with_a_reader_precedes_a_recognized_one(self) -> None:
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
    def test_other_bytes_have_no_signature(self, data: bytes) -> None:
        assert read(data, "weights.bin") is None
