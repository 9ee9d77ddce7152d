"""Every block of bash in the documentation works as a reader pastes it: page by page, in order.

Only ports, folders and the path of `.venv` are replaced. A block that starts the registry (`make run`,
`model-registry up`) starts a product of the test. A comment `<!-- not run: reason -->` before a block excludes it. A
block whose tool is missing is left out, and a test that is skipped names the tool.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from modelreg import Registry

from tests.products import Product, running_up
from tests.temporary_folders import accessible_folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
TUTORIAL = "docs/tutorial.md"
SHARED = (TUTORIAL, "docs/clients/go.md", "docs/clients/java.md", "docs/clients/typescript.md")
"""Pages that run on the products that other tests use: embedded, and on an S3. Others run on a product of their own."""
REPEATABLE = ("README.md", "docs/clients/python.md")
"""Pages that a reader may paste again."""
SECONDS = 240
DATA_DIR = "~/.local/share/model-registry"

FENCE = re.compile(
    r"^(?: *<!-- not run: (?P<reason>[^\n]+) -->\n)?^(?P<indent> *)```(?P<language>[^\n]*)\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
START = re.compile(r"(?P<settings>(?:[A-Z_]+=\S+ )*)(?:make run|\.venv/bin/model-registry up)\n")
# Toolchains download packages, so they are used only where EXAMPLES names them.
TOOLCHAINS = {"go": "go", "npm": "typescript", "mvn": "java"}
BINARIES = {"grpcurl": "GRPCURL_BINARY"}
TOOLS = (*TOOLCHAINS, *BINARIES, "openssl")

EXAMPLE = (
    "registered example-",
    "@production is version 1.1.0",
    "rolled back to version 1.0.0",
    "move 3: ",
    "move 1: ",
    ":1.1.0 aliases ",
    ":1.0.0 aliases ",
    "with the right SHA-256",
    "ALIAS_ROLLED_BACK",
    "refused as MODEL_NOT_FOUND",
)
"""What each program in examples/ prints, in this order."""
PRINTED: Mapping[str, tuple[str, ...]] = {
    "README.md": (
        "Registered vad:1.0.0 with SHA-256 ",
        "Production is vad:1.0.0",
        "Registered vad:1.1.0",
        "vad@production  1.0.0 → 1.1.0",
        "vad@production  1.1.0 → 1.0.0",
        "models/vad.bin",
    ),
    "docs/clients/go.md": EXAMPLE,
    "docs/clients/grpcurl.md": (
        "\nmodelregistry.v1.ModelService\n",
        '\n  "id": "grpcurl-example-1"',
        '\n      "id": "grpcurl-example-1"',
        '"resume_token": ',
    ),
    "docs/clients/python.md": (
        "Registered python-vad:1.2 with 5120000 bytes",
        "Found python-vad:1.2 0.95",
        "Production is 1.2",
        "Rolled back to 1.1",
        "Pulled vad.bin",
        "Registered python-vad:1.3",
        "Files: ['labels.txt', 'net.txt']",
        "Pulled ['labels.txt', 'net.txt']",
        "Labels: ['cat', 'dog']",
        "True\nTrue\n",
        "Somebody else was first",
        "Refused: metrics.f1",
        "Not found: REFERENCE_NOT_FOUND True",
        "alias_set production",
        "alias_rolled_back production",
        "Pulled ['vad.bin', 'detector']",
        "Versions: ['1.3', '1.2', '1.1']",
    ),
    "docs/clients/python-stubs.md": ("with 5120000 bytes", "Downloaded the same bytes", "Refused as UPLOAD_NOT_FOUND"),
    "docs/clients/java.md": EXAMPLE,
    "docs/clients/rest.md": ('"committed_size":"1000000"', '"score":0.5', "The second write gets 412"),
    "docs/clients/typescript.md": EXAMPLE,
    "docs/operations/access.md": ('"models":[]', "ci  writer in all projects", "revoked"),
    "docs/operations/backup.md": ("The audit log ends with event 0", "0 bytes read"),
    "docs/reference/settings.md": ("PSQL_PASSWORD=", "SERVER_PORT=32002"),
}
"""What the blocks of a page print, in this order."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    code: str
    reason: str | None
    """Why the block is not run."""

    @property
    def start(self) -> Mapping[str, str] | None:
        """The settings with which the block starts the registry; None for other blocks."""
        match = START.fullmatch(self.code)
        return match and dict(setting.split("=", 1) for setting in shlex.split(match["settings"].lower()))

    @property
    def tools(self) -> frozenset[str]:
        """The programs that the block runs and that a machine may lack."""
        words = re.findall(rf"(?:^|[|(;]|&&|\$\()\s*(?:timeout \d+ )?({'|'.join(TOOLS)}) ", self.code, re.MULTILINE)
        return frozenset(words)


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(m["language"], textwrap.dedent(m["code"]), m["reason"]) for m in FENCE.finditer(text)]


def runnable(page: str) -> list[Block]:
    return [block for block in blocks_of(page) if block.language == "bash" and block.reason is None]


def tools_of(page: str) -> frozenset[str]:
    return frozenset[str]().union(*(block.tools for block in runnable(page)))


def is_allowed(tool: str) -> bool:
    return tool not in TOOLCHAINS or TOOLCHAINS[tool] in os.environ.get("EXAMPLES", "").split()


def found(tool: str) -> str | None:
    """Return the path of a program; None where there is none, or where EXAMPLES does not name its language."""
    return (os.environ.get(BINARIES.get(tool, "")) or shutil.which(tool)) if is_allowed(tool) else None


def path_of(tool: str) -> str:
    """Return the path of a program; skip the test where there is none."""
    if path := found(tool):
        return path
    if not is_allowed(tool):
        pytest.skip(f"needs {tool}, and EXAMPLES to name {TOOLCHAINS[tool]}")
    pytest.skip(f"needs {tool} on PATH{f', or {BINARIES[tool]}' if tool in BINARIES else ''}")


def for_product(code: str, product: Product | None) -> str:
    """Return a block with the addresses and the data folder of a product."""
    # A watch has no end of its own.
    code = re.sub(r"^timeout 5 ((?:.*\\\n)*.*)$", r"{ timeout 1 \1; } || test $? = 124", code, flags=re.MULTILINE)
    if product is None:
        return code
    data_dir = next((item for item in product.server.arguments if item.startswith("--data-dir=")), "")
    code = re.sub(r"(model-registry token \w+)", rf"\1 {data_dir}", code)
    places = {
        "127.0.0.1:32002": f"127.0.0.1:{product.rest_port}",
        "127.0.0.1:50051": product.grpc_address,
        DATA_DIR: data_dir.removeprefix("--data-dir="),
    }
    for written, actual in places.items():
        code = code.replace(written, actual)
    return code


def paste(script: str, folder: Path, tools: Iterable[str], product: Product | None) -> str:
    """Run a script in a copy of the repository, and return what it prints."""
    bin_dir = Path(sys.executable).parent
    programs = folder / "programs"
    programs.mkdir()
    for tool in tools:
        (programs / tool).symlink_to(Path(path_of(tool)).resolve())
    script = script.replace("/tmp/registry-tour", str(folder / "tour")).replace(".venv/bin/", f"{bin_dir}/")
    result = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=copy_of_the_repository(folder),
        env=environment_for_client(folder, product)
        | {"PATH": f"{programs}{os.pathsep}{bin_dir}{os.pathsep}{os.environ['PATH']}"},
        text=True,
        timeout=SECONDS * (4 if TOOLCHAINS.keys() & set(tools) else 1),
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def environment_for_client(folder: Path, product: Product | None) -> dict[str, str]:
    """Return an environment in which the Python client and `mreg` find the product, and directories of their own."""
    variables = {name: text for name, text in os.environ.items() if not name.startswith("MODELREG_")}
    for name in ("CACHE", "CONFIG", "STATE"):
        variables[f"MODELREG_{name}"] = str(folder / "modelreg" / name)
    if product is not None:
        variables["MODELREG_URL"] = f"grpc://{product.grpc_address}"
    return variables


def copy_of_the_repository(folder: Path) -> Path:
    """Return a folder that looks like the repository, so that blocks write nothing into the real one."""
    copy = folder / "repository"
    copy.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in {".git", ".env", ".build", ".venv", "examples", "protos"}:
            (copy / entry.name).symlink_to(entry)
    # Maven's plugin for protobuf follows no links.
    ignored = shutil.ignore_patterns("gen", "node_modules", "dist", "target")
    for name in ("examples", "protos"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    return copy


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page not in SHARED and any(block.start is None for block in runnable(page))]
)
def test_the_blocks_of_a_page_work_in_order(page: str, tmp_path: Path) -> None:
    tools = frozenset(tool for tool in tools_of(page) if found(tool))
    script = []
    product = None
    with ExitStack() as stack:
        for block in runnable(page):
            if block.start is not None:
                product = stack.enter_context(running_up(stack.enter_context(accessible_folder()), **block.start))
            elif block.tools <= tools:
                script.append(for_product(block.code, product))
        printed = paste("".join(script) * (2 if page in REPEATABLE else 1), tmp_path, tools, product)
    # All other blocks have worked.
    for tool in sorted(tools_of(page)):
        path_of(tool)
    assert_printed(PRINTED.get(page, ()), printed)


def assert_printed(expected: Iterable[str], printed: str) -> None:
    position = 0
    for text in expected:
        assert text in printed[position:], f"{text!r} does not follow in:\n{printed}"
        position = printed.index(text, position)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", [page for page in SHARED if page != TUTORIAL])
def test_an_example_works_as_its_page_says(product: Product, page: str, tmp_path: Path) -> None:
    for tool in sorted(tools_of(page)):
        path_of(tool)
    blocks = [block for block in runnable(page) if block.start is None]
    printed = paste("".join(for_product(block.code, product) for block in blocks), tmp_path, tools_of(page), product)
    assert_printed(PRINTED[page], printed)


@pytest.fixture
def nothing_is_left(product: Product) -> None:
    """Delete what an interrupted tutorial has left."""
    with Registry(f"grpc://{product.grpc_address}") as registry:
        for model in list(registry.models("name = silero-vad")):
            registry.delete(model, force=True)


@pytest.mark.usefixtures("nothing_is_left")
def test_the_tutorial_works_in_order(product: Product, tmp_path: Path) -> None:
    blocks = [block for block in runnable(TUTORIAL) if block.start is None]
    printed = paste("".join(for_product(block.code, product) for block in blocks), tmp_path, (), product)
    assert_printed(
        (
            "Registered silero-vad:6.2.2 with 2327524 bytes",
            "Input input ",
            "Registered silero-vad:6.2.3",
            "Found silero-vad:6.2.3",
            "silero-vad@production  6.2.2",
            "silero-vad@production  6.2.2 → 6.2.3",
            "silero-vad@production  6.2.3 → 6.2.2",
            "At the promotion: 6.2.3, now: 6.2.2",
            "rolled_back",
            "On the other machine:",
            "silero_vad.onnx",
            "The same bytes",
        ),
        printed,
    )
    assert '"stage":"candidate"' in printed
    assert_rolled_back(printed)
    assert re.search(r'"path":"precisions"', printed), "a comparison"
    assert re.search(r'"parent_model_ids":\["[^"]+"\]', printed), "a lineage"
    assert '"owner":"audio"' in printed
    assert '"valid":true' in printed
    assert '"resume_token":' in printed


def assert_rolled_back(printed: str) -> None:
    """Assert that production was promoted from version 7 to 8, and rolled back: now 7, then 8."""
    starts = re.finditer(r'\{"(?:alias":[{"]|alias_moves":\[)', printed)
    answers = [json.JSONDecoder().raw_decode(printed, start.start())[0] for start in starts]
    # A move of an alias returns it inside a response, a read returns it alone; a move in a history has a kind.
    aliases = [
        answer if isinstance(answer["alias"], str) else answer["alias"]
        for answer in answers
        if "alias" in answer and "kind" not in answer
    ]
    assert [alias["version"] for alias in aliases] == ["7", "8", "7", "8"]
    assert [alias["reason"] for alias in aliases] == ["in use", "half the size", "false alarms", "half the size"]
    [moves] = [answer["alias_moves"] for answer in answers if "alias_moves" in answer]
    assert [move["kind"] for move in moves][:3] == ["KIND_ROLLED_BACK", "KIND_SET", "KIND_SET"]


def test_every_block_has_a_language() -> None:
    assert not [(page, block.code) for page in PAGES for block in blocks_of(page) if not block.language]


def test_no_command_hides_in_a_block_that_is_not_run() -> None:
    shells = {"sh", "shell", "console", "zsh"}
    assert not [(page, block.code) for page in PAGES for block in blocks_of(page) if block.language in shells]


@pytest.mark.parametrize("page", list(PRINTED))
def test_every_page_with_expected_output_has_blocks(page: str) -> None:
    assert runnable(page)


def test_the_readme_names_the_commands_that_the_checks_run() -> None:
    commands = [block.code for block in blocks_of("README.md") if block.code.startswith("make ")]
    assert commands == ["make run\n", "make test\n"]
    assert " make --no-print-directory test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_error_in_the_reference_is_what_the_gateway_answers(product: Product) -> None:
    [block] = [block for block in blocks_of("docs/reference/errors.md") if block.language == "json"]
    expected = json.loads(block.code)
    answer = httpx.get(f"{product.rest_url}/v1/models/{expected['details'][0]['metadata']['model_id']}")
    expected["details"][1]["request_id"] = answer.headers["x-request-id"]
    assert answer.status_code == 404
    assert answer.json() == expected


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_links_of_a_page_outside_of_the_site_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
