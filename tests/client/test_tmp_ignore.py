"""The rules of .mregignore mean what those of .gitignore mean to git.

But `?` and `[…]` match a character, where git matches a byte of it, so all names here are ASCII.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modelreg.folders import plan_folder

from tests.client.folder_trees import write_tree

FILES = [
    "a",
    "b.txt",
    "ab/a",
    "ab/b.txt",
    "ab/abc/a",
    "ab/abc/-",
    "ab/abc/b.txt",
    "b/ab/abc/a b",
    "b/ab/[x]",
    "b/!a",
    "b/#a",
    "b/a ",
    "c/a\\b",
    "c/]",
    "c/^",
    "c/A1",
]
# Names that Windows cannot have are compared through the rules alone.
PORTABLE_FILES = [path for path in FILES if "\\" not in path and not path.endswith(" ")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of git with FILES, without rules."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = write_tree(tmp_path_factory.mktemp("rules") / "m", dict.fromkeys(PORTABLE_FILES, b""))
    subprocess.run(["git", "init", "-q", folder], check=True)
    return folder


def kept_by_git(folder: Path, rules: Mapping[str, str]) -> set[str]:
    """Return the files that git does not ignore with rules, by the folders of their .gitignore."""
    for base, text in rules.items():
        (folder / base / ".gitignore").write_bytes(text.encode())
    command = [
        "git",
        "-c",
        "core.quotePath=false",
        "-c",
        "core.excludesFile=",
        "ls-files",
        "-zco",
        "--exclude-standard",
    ]
    listed = subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.decode().split("\0")
    for base in rules:
        (folder / base / ".gitignore").unlink()
    return set(listed) & set(PORTABLE_FILES)


def kept_by_us(folder: Path, rules: Mapping[str, str]) -> set[str]:
    """Return the files that are packed with rules, by the folders of their .mregignore."""
    for base, text in rules.items():
        (folder / base / ".mregignore").write_bytes(text.encode())
    # A file that no rule matches: a folder without files is refused.
    (folder / "z-last").write_bytes(b"")
    try:
        return {file.path for file in plan_folder(folder, ignore=["!/z-last"]).files} - {"z-last"}
    finally:
        (folder / "z-last").unlink()
        for base in rules:
            (folder / base / ".mregignore").unlink()


PARTS = ["a", "b", "c", "*", "**", "?", "/", "/", "/**/", "**/", "[ab]", "[!a]", "[^b-z]", "[z-a]", "[[:upper:]]"]
PARTS += [
    "\\",
    "!",
    "#",
    " ",
    ".txt",
    "[]]",
    "[]-]",
    "[\\]]",
    "[",
    "-",
    "[a-",
    "[[:what:]]",
    "\\ ",
    "***",
    "[!]a-]",
]
LINE = st.builds("".join, st.lists(st.sampled_from(PARTS), min_size=1, max_size=6)).filter(
    # Git does not do what it documents: // matches too much, and ** after a text matches slashes.
    lambda line: not re.search(r"//|[^/]\*\*", line.removeprefix("!"))
)
RULES = st.builds("\n".join, st.lists(st.one_of(LINE, LINE.map("!".__add__)), min_size=1, max_size=4))


@settings(max_examples=1500)
@given(root=RULES, inner=st.one_of(st.just(""), RULES))
@example(root="*\n!*/\n!*.txt", inner="")
@example(root="ab/\n!ab/abc/a", inner="!a")
@example(root="/a\r\nb/**/a b\r\n", inner="")
@example(root="ab/**\n!ab/abc/", inner="")
@example(root="**/abc/*\n*abc", inner="/abc")
@example(root="a\\ \n\\!a\n\\#a", inner="")
@example(root="[[:alpha:][:digit:]-]\n[a-c-z]", inner="")
@example(root="c/[^]]", inner="")
@example(root="[!-a]", inner="")
@example(root="[z-a]*\n[a-[[:upper:]]", inner="")
def test_rules_leave_out_what_git_ignores(checkout: Path, root: str, inner: str) -> None:
    rules = {"": root, "ab": inner}
    assert kept_by_us(checkout, rules) == kept_by_git(checkout, rules), rules
