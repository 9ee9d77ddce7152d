"""The examples in the docstrings of the client, and the one of its README, do what they show.

Examples of `modelreg._async` are run in their generated form, in `modelreg._sync`. An example may use:

- `reg`: a registry with vad:6.2.2 and vad:6.2.3, which has f1 = 0.91; vad@production is vad:6.2.2
- the working directory: it has the files vad.onnx and next.onnx, and the folder detector
"""

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import modelreg
import pytest
from modelreg import Registry

from tests.client.folder_trees import write_tree

README = Path(modelreg.__file__).parents[1] / "README.md"


def examples() -> Iterator[doctest.DocTest]:
    """Yield the docstrings with examples, each once."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    seen: set[str] = set()
    for module in pkgutil.walk_packages(modelreg.__path__, "modelreg."):
        if not re.search(r"\._async\b|\.__main__$", module.name):
            for found in finder.find(importlib.import_module(module.name)):
                if found.examples and found.name not in seen:
                    seen.add(found.name)
                    yield found


EXAMPLES = list(examples())


@pytest.fixture
def reg(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry and the working directory of the examples."""
    monkeypatch.chdir(
        write_tree(tmp_path / "work", {"vad.onnx": "1", "next.onnx": "2", "detector/labels.txt": "cat\n"})
    )
    for model in list(registry.models()):
        registry.delete(model, force=True)
    first = registry.push("vad.onnx", name="vad", version="6.2.2", metrics={"f1": 0.88}, tags={"team": "audio"})
    registry.push("next.onnx", name="vad", version="6.2.3", metrics={"f1": 0.91}, tags={"team": "audio"})
    registry.promote("vad@production", first)
    return registry


@pytest.mark.parametrize("example", [pytest.param(found, id=found.name) for found in EXAMPLES])
def test_the_example_of_a_docstring_prints_what_it_shows(
    example: doctest.DocTest, request: pytest.FixtureRequest
) -> None:
    code = "".join(part.source for part in example.examples)
    if re.search(r"\breg\b", code) and not re.search(r"\breg = ", code):
        example.globs["modelreg"] = modelreg
        example.globs["reg"] = request.getfixturevalue("reg")
    printed = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=printed.write, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, printed.getvalue()


def test_the_synchronous_examples_have_no_parentheses_left_of_await() -> None:
    sources = {part.source for found in EXAMPLES for part in found.examples}
    assert not {source for source in sources if source.startswith("(reg.")}
    assert 'reg.model("vad@production").version\n' in sources


def test_there_are_examples_of_what_users_do_most() -> None:
    names = {found.name.rpartition(".")[2] for found in EXAMPLES}
    assert {"push", "pull", "open", "model", "models", "promote", "rollback", "update", "watch"} <= names


@pytest.mark.usefixtures("reg")
def test_the_example_of_the_readme_works(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELREG_URL", url)
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, {})
