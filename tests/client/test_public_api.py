"""The public API of the client does not change by accident, and is the same with and without asyncio."""

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import modelreg
import pytest
from modelreg.metadata import Metadata

from tests.client import public_api

SNAPSHOT = Path(__file__).with_name("public_api.txt")
GENERATOR = Path(modelreg.__file__).parents[1] / "generate_sync.py"


def test_the_public_api_is_the_one_that_was_published() -> None:
    published = SNAPSHOT.read_text(encoding="utf-8").splitlines()
    present = public_api.text().splitlines()
    gone = [line for line in published if line not in present]
    new = [line for line in present if line not in published]
    assert (gone, new) == ([], []), (
        "The public API differs from tests/client/public_api.txt. If that is meant, run "
        "`.venv/bin/python -m tests.client.public_api >tests/client/public_api.txt`."
    )


def test_every_public_name_can_be_imported_and_is_documented() -> None:
    for name in modelreg.__all__:
        found = getattr(modelreg, name)
        assert name == "__version__" or found.__doc__, name
    assert set(modelreg.__all__) <= set(dir(modelreg))


def test_push_names_every_field_of_the_metadata_that_it_takes() -> None:
    described = modelreg.Registry.push.__doc__ or ""
    assert [name for name in Metadata.__annotations__ if f"`{name}`" not in described] == []


@pytest.mark.parametrize("name", modelreg.aio.__all__)
def test_the_asynchronous_api_has_the_same_names_and_parameters(name: str) -> None:
    sync, aio = getattr(modelreg, name), getattr(modelreg.aio, name)
    ours, theirs = public_api.methods(sync), public_api.methods(aio)
    assert set(ours) == set(theirs)
    to_sync = _generator().to_sync
    for method, member in ours.items():
        if isinstance(member, property):
            assert isinstance(theirs[method], property)
            continue
        of_sync, of_aio = inspect.signature(member), inspect.signature(theirs[method])
        assert list(of_sync.parameters) == list(of_aio.parameters), method
        for one, other in zip(of_sync.parameters.values(), of_aio.parameters.values(), strict=True):
            assert (one.kind, one.default) == (other.kind, other.default), f"{method}({one.name})"
        assert of_sync.return_annotation in to_sync(str(of_aio.return_annotation)), method
        assert not inspect.iscoroutinefunction(member), method


@pytest.mark.parametrize("kind", [modelreg.Registry, modelreg.aio.Registry])
def test_every_public_method_is_documented(kind: type) -> None:
    for name, member in public_api.methods(kind).items():
        assert inspect.getdoc(member), name


def _generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_sync", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
