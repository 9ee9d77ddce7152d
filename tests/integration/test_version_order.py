"""The database orders all versions as decision 0011 defines."""

import itertools
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version
from sqlalchemy import Engine, bindparam, text
from sqlalchemy.types import ARRAY, Text

from tests.version_order import is_release, sort_key, version_key

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "versions.json").read_text())
ORDERED = text("""
    SELECT version FROM unnest(:versions) AS version ORDER BY model_version_key(version), version COLLATE "C"
""").bindparams(bindparam("versions", type_=ARRAY(Text)))
KEYS = text("""
    SELECT version, model_version_key(version) AS key, model_version_is_release(version) AS is_release
    FROM unnest(:versions) AS version
""").bindparams(bindparam("versions", type_=ARRAY(Text)))
FRAGMENTS = [
    *("0", "1", "2", "9", "10", "010", "00", "99999999999999999999"),
    *("v", "V", "a", "b", "c", "dev", "alpha", "BETA", "rc", "pre", "preview", "post", "snapshot", "nightly", "x", "é"),
    *(
        ".",
        "-",
        "_",
        "+",
        " ",
        "/",
        ":",
        "~",
        "^",
        "[",
        "`",
        "@",
        "\x7f",
        "\x01",
        "中",
        "\U0001f600",
        "int8",
        "'",
        "\\",
    ),
]
NUMBERS = st.sampled_from(["0", "1", "2", "9", "10", "010", "99", "100", "00", "20260105", "9" * 40])
TEXTS = (
    st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join)
    | st.lists(NUMBERS, min_size=1, max_size=5).map(".".join)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
)


def ordered(engine: Engine, versions: Sequence[str]) -> list[str]:
    shuffled = random.Random(len(versions)).sample(versions, len(versions))
    with engine.connect() as connection:
        return list(connection.execute(ORDERED, {"versions": shuffled}).scalars())


def keys(engine: Engine, versions: Sequence[str]) -> dict[str, tuple[bytes, bool]]:
    with engine.connect() as connection:
        return {
            row.version: (bytes(row.key), row.is_release)
            for row in connection.execute(KEYS, {"versions": list(versions)})
        }


class TestVectors:
    @pytest.mark.parametrize("versions", VECTORS["ascending"], ids=lambda versions: versions[-1])
    def test_versions_are_ordered(self, engine: Engine, versions: list[str]) -> None:
        found = [key for key, _ in keys(engine, versions).values()]
        assert len(found) == len(versions)
        assert all(one < next_one for one, next_one in itertools.pairwise(found))

    @pytest.mark.parametrize("versions", VECTORS["equal"], ids=lambda versions: versions[0])
    def test_equivalent_versions_differ_only_by_their_texts(self, engine: Engine, versions: list[str]) -> None:
        assert len({key for key, _ in keys(engine, versions).values()}) == 1

    def test_releases_are_recognized(self, engine: Engine) -> None:
        assert [version for version, (_, is_one) in keys(engine, VECTORS["releases"]).items() if not is_one] == []

    def test_pre_releases_are_recognized(self, engine: Engine) -> None:
        assert [version for version, (_, is_one) in keys(engine, VECTORS["prereleases"]).items() if is_one] == []


class TestAllTexts:
    @given(st.lists(TEXTS, min_size=200, max_size=400, unique=True))
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    def test_any_versions_are_ordered_as_the_reference_implementation_does(
        self, engine: Engine, versions: list[str]
    ) -> None:
        assert ordered(engine, versions) == sorted(versions, key=sort_key)
        found = keys(engine, versions)
        assert {version: is_one for version, (_, is_one) in found.items()} == {v: is_release(v) for v in versions}
        by_key = itertools.groupby(sorted(versions, key=version_key), key=version_key)
        assert all(len({found[version][0] for version in group}) == 1 for _, group in by_key)

    @pytest.mark.parametrize(
        "version",
        ["9" * 5000, "9." * 2500, "x" * 5000, "\U0001f600" * 5000, "." * 5000, "+" * 5000, "1" + ".0" * 2499 + ".1"],
        ids=lambda version: version[:2],
    )
    def test_the_size_of_a_sort_key_is_bounded(self, engine: Engine, version: str) -> None:
        assert 1 <= len(keys(engine, [version])[version][0]) <= 400

    def test_an_index_row_never_exceeds_its_size_limit(self, engine: Engine) -> None:
        dice = random.Random(1)

        def incompressible(length: int) -> str:
            return "".join(chr(dice.randrange(0x10000, 0x10FFFF)) for _ in range(length))

        row = """
            INSERT INTO models (id, name, version, project_id, project_name, precision, metrics, tags, provenance,
                created_date, last_updated_date, create_time, update_time, revision, creator, file_name, media_type,
                size, sha256, file_url, object_key)
            VALUES (:id, :name, :version, :project_id, :project_name, '{fp32}', '{}', '{}', '{}',
                '', '', now(), now(), 1, '', 'a', 'a/b', 1, repeat('0', 64), '', 'k')
        """
        with engine.begin() as connection:
            texts = {name: incompressible(5000) for name in ("name", "version", "project_id", "project_name")}
            connection.execute(text(row), texts | {"id": f"{dice.randrange(10**255):0256}"})


class TestConventions:
    def test_python_versions_are_ordered_as_in_python(self, engine: Engine) -> None:
        versions = [
            f"{release}{pre}{post}{dev}{local}"
            for release in ("0.1", "1.0", "1.0.1", "1.9", "1.10", "2026.1.5")
            for pre in ("", "a1", "a2", "b1", "rc1", "rc10")
            for post in ("", ".post1", ".post2")
            for dev in ("", ".dev1", ".dev2")
            for local in ("", "+1", "+10", "+cpu")
        ]
        assert ordered(engine, versions) == sorted(versions, key=Version)
        is_release_of = {version: is_one for version, (_, is_one) in keys(engine, versions).items()}
        assert is_release_of == {version: not Version(version).is_prerelease for version in versions}

    def test_semantic_versions_with_common_pre_releases_are_in_semantic_order(self, engine: Engine) -> None:
        versions = [
            f"{major}.{minor}.{patch}{pre}"
            for major, minor, patch in itertools.product((0, 1, 10), (0, 2, 10), (0, 9, 11))
            for pre in ("-alpha", "-alpha.1", "-alpha.1.2", "-beta.2", "-beta.11", "-rc.1", "-rc.2", "")
        ]
        assert ordered(engine, versions) == versions
