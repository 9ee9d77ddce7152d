"""The reference pages are what the code says."""

import re
from pathlib import Path

import pytest

from docs.generators import command_line, mreg, settings
from registry_service.domain import filter as filters

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize(
    ("page", "document"),
    [("settings", settings.document), ("command-line", command_line.document), ("mreg", mreg.document)],
)
def test_a_generated_page_is_up_to_date(page: str, document: object) -> None:
    assert callable(document)
    assert (REFERENCE / f"{page}.md").read_text(encoding="utf-8") == document(), "run `make generate`"


def test_every_setting_is_described_by_sentences() -> None:
    for section in settings.SECTIONS:
        for name, field in section.kind.model_fields.items():
            assert (field.description or "").endswith("."), name


def test_every_filter_of_the_page_is_valid() -> None:
    page = (REFERENCE / "filters.md").read_text(encoding="utf-8")
    examples = re.findall(r"^\| `(.+?)` \|", page, re.MULTILINE)
    assert len(examples) > 5
    for example in examples:
        assert filters.parse(example) is not None
