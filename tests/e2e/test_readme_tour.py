"""What the README marks as bash works as it is pasted: only ports, folders and programs are put in."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.products import Product, grpcurl, running_up
from tests.temporary_folders import accessible_folder

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECONDS = 240
TOUR, GROUPS, ACCESS, AUDIT = "A tour", "Model groups", "Who may do what", "Audit and watch"


@dataclass(frozen=True)
class Block:
    """A fenced block that can be pasted, and the section that it stands in."""

    section: str
    code: str

    @property
    def needs_grpcurl(self) -> bool:
        return bool(re.search(r"^(?:timeout \d+ )?grpcurl ", self.code, re.MULTILINE))


def blocks_of(*sections: str) -> list[Block]:
    """Return the bash blocks of these sections in their order. Blocks without a language hold placeholders."""
    found = []
    section = ""
    for match in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        if match[1]:
            section = match[1]
        elif match[2] == "bash" and section in sections:
            found.append(Block(section, match[3]))
    return found


def paste(blocks: list[Block], product: Product, folder: Path, replacements: Mapping[str, str] | None = None) -> str:
    """Run blocks in one shell against a product and return what they print."""
    script = "".join(block.code for block in blocks)
    places = {
        "127.0.0.1:32002": f"127.0.0.1:{product.rest_port}",
        "127.0.0.1:50051": product.grpc_address,
        "/tmp/registry-tour": str(folder),
        ".venv/bin/": f"{Path(sys.executable).parent}/",
    }
    for written, actual in (places | dict(replacements or {})).items():
        script = script.replace(written, actual)
    # A watch has no end of its own.
    script = re.sub(r"^timeout 5 ((?:.*\\\n)*.*)$", r"{ timeout 1 \1; } || test $? = 124", script, flags=re.MULTILINE)
    if any(block.needs_grpcurl for block in blocks):
        script = script.replace("grpcurl -plaintext", f"{shlex.quote(grpcurl())} -plaintext")
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
    starts = re.finditer(r'\{"(?:alias":[{"]|alias_moves":\[)', printed)
    answers = [json.JSONDecoder().raw_decode(printed, start.start())[0] for start in starts]
    # Moves of an alias come inside of an answer, reads of it as they are; those inside of a history have a kind.
    aliases = [
        answer if isinstance(answer["alias"], str) else answer["alias"]
        for answer in answers
        if "alias" in answer and "kind" not in answer
    ]
    assert [alias["version"] for alias in aliases] == ["7", "8", "7", "8"]
    assert [alias["reason"] for alias in aliases] == ["in use", "half the size", "false alarms", "half the size"]
    [moves] = [answer["alias_moves"] for answer in answers if "alias_moves" in answer]
    assert [move["kind"] for move in moves][:3] == ["KIND_ROLLED_BACK", "KIND_SET", "KIND_SET"]


def assert_compared_and_traced(printed: str) -> None:
    """Expects that the two versions were compared, and that the new one was made from the good one."""
    assert re.search(r'"path":"precisions"', printed)
    assert re.search(r'"parent_model_ids":\["[^"]+"\]', printed)


@pytest.mark.usefixtures("nothing_is_left")
def test_python_and_curl_show_what_the_readme_says(product: Product, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(TOUR, GROUPS, AUDIT) if not block.needs_grpcurl]
    printed = paste(blocks, product, tmp_path)
    assert "Registered silero-vad-6-2-3-fp32 with 2327524 bytes" in printed
    assert "Found silero-vad 6.2.3" in printed
    assert "Downloaded the same bytes" in printed
    assert '"stage":"candidate"' in printed
    assert_rolled_back(printed)
    assert_compared_and_traced(printed)
    assert '"owner":"audio"' in printed
    assert '"valid":true' in printed
    assert '"resume_token":' in printed


@pytest.mark.usefixtures("nothing_is_left")
def test_grpcurl_shows_what_the_readme_says(product: Product, tmp_path: Path) -> None:
    printed = paste(blocks_of(TOUR, GROUPS, AUDIT), product, tmp_path)
    assert "modelregistry.v1.ModelService" in printed.splitlines()
    # In one model and in a list; an event of WatchAuditEvents has it deeper.
    assert re.search(r'^  "id": "silero-vad-6-2-3-fp32"', printed, re.MULTILINE), "GetModel"
    assert re.search(r'^      "id": "silero-vad-6-2-3-fp32"', printed, re.MULTILINE), "ListModels"
    assert '"resume_token": ' in printed, "WatchAuditEvents"


def test_a_token_is_made_and_used_as_the_readme_says(tmp_path: Path) -> None:
    start, *use = [block for block in blocks_of(ACCESS) if not block.needs_grpcurl]
    assert start.code == "AUTH_MODE=token .venv/bin/model-registry up\n"
    with accessible_folder() as folder, running_up(folder, auth_mode="token") as product:
        ours = {" --role": f" --data-dir={folder / 'data'} --role"}
        printed = paste(use, product, tmp_path, ours)
    assert '"models":[]' in printed


def test_a_token_is_used_with_grpcurl_as_the_readme_says(tmp_path: Path) -> None:
    use = blocks_of(ACCESS)[1:]
    with accessible_folder() as folder, running_up(folder, auth_mode="token") as product:
        printed = paste(use, product, tmp_path, {" --role": f" --data-dir={folder / 'data'} --role"})
    assert printed.endswith("{}\n")


def test_every_block_of_bash_in_the_readme_is_run_by_these_tests() -> None:
    assert README.count("\n```bash\n") == len(blocks_of(TOUR, GROUPS, ACCESS, AUDIT))


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
