"""The tour in the README works as it is pasted: only ports, folders and programs are put in."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.products import Product, grpcurl

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECONDS = 240


@dataclass(frozen=True)
class Block:
    """A fenced block, and the heading that it stands under."""

    heading: str
    code: str


def tour() -> list[Block]:
    """Every block of the tour in order; all are bash, as they are pasted one after the other."""
    section = README.partition("\n## A tour\n")[2].partition("\n## ")[0]
    blocks = []
    heading = ""
    for match in re.finditer(r"^### ([^\n]+)$|^```(\w*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        if match[1]:
            heading = match[1]
        else:
            assert match[2] == "bash", f"a block in {match[2] or 'no language'} can't be pasted"
            blocks.append(Block(heading, match[3]))
    return blocks


def paste(blocks: list[Block], product: Product, folder: Path, **programs: str) -> str:
    """Runs blocks in one shell against a product and returns what they print."""
    script = "".join(block.code for block in blocks)
    replacements = {
        "127.0.0.1:32002": f"127.0.0.1:{product.rest_port}",
        "127.0.0.1:50051": product.grpc_address,
        "/tmp/registry-tour": str(folder),
        ".venv/bin/": f"{Path(sys.executable).parent}/",
    }
    for written, actual in replacements.items():
        assert any(written in block.code for block in tour())
        script = script.replace(written, actual)
    for name, path in programs.items():
        script = f'{name}() {{ {shlex.quote(path)} "$@"; }}\n{script}'
    result = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=ROOT,
        text=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture
def nothing_is_left(product: Product) -> None:
    """Deletes what a tour that broke off has left."""
    for model_id in ("silero-vad-6-2-3-fp32", "silero-vad-6-2-3-fp16"):
        assert httpx.delete(f"{product.rest_url}/v1/models/{model_id}", params={"allow_missing": True}).is_success


def assert_rolled_back(printed: str) -> None:
    """Expects that production was promoted from version 7 to 8, and rolled back: now 7, then 8."""
    starts = re.finditer(r'\{"(?:alias":\{|moves":\[)', printed)
    answers = [json.JSONDecoder().raw_decode(printed, start.start())[0] for start in starts]
    aliases = [answer["alias"] for answer in answers if "alias" in answer]
    assert [alias["version"] for alias in aliases] == ["7", "8", "7", "8"]
    assert [alias["reason"] for alias in aliases] == ["in use", "half the size", "false alarms", "half the size"]
    [moves] = [answer["moves"] for answer in answers if "moves" in answer]
    assert [move["kind"] for move in moves][:3] == ["KIND_ROLLED_BACK", "KIND_SET", "KIND_SET"]


@pytest.mark.usefixtures("nothing_is_left")
def test_python_and_curl_show_what_the_tour_says(product: Product, tmp_path: Path) -> None:
    printed = paste([block for block in tour() if block.heading != "grpcurl"], product, tmp_path)
    assert "Registered silero-vad-6-2-3-fp32 with 2327524 bytes" in printed
    assert "Found silero-vad 6.2.3" in printed
    assert "Downloaded the same bytes" in printed
    assert '"stage":"candidate"' in printed
    assert_rolled_back(printed)


@pytest.mark.usefixtures("nothing_is_left")
def test_grpcurl_shows_what_the_tour_says(product: Product, tmp_path: Path) -> None:
    program = grpcurl()
    printed = paste([block for block in tour() if block.heading != "curl"], product, tmp_path, grpcurl=program)
    assert "modelregistry.v1.ModelService" in printed.splitlines()
    assert printed.count('"id": "silero-vad-6-2-3-fp32"') == 2, "GetModel and ListModels"
    assert_rolled_back(printed)


def test_the_readme_names_the_commands_that_the_checks_run() -> None:
    assert "\nmake run\n" in README
    assert "\nmake test\n" in README
    assert " make --no-print-directory test\n" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_error_in_the_readme_is_what_the_gateway_answers(product: Product) -> None:
    shown = re.search(r"```json\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    expected = httpx.Response(200, text=shown[1]).json()
    answer = httpx.get(f"{product.rest_url}/v1/models/{expected['details'][0]['metadata']['model_id']}")
    expected["details"][1]["request_id"] = answer.headers["x-request-id"]
    assert answer.status_code == 404
    assert answer.json() == expected
