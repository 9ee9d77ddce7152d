"""The patterns of `pull(files=...)`."""

import pytest
from modelreg import InvalidArgument, NotFound
from modelreg._pulls.patterns import Patterns

PATHS = ["a.xml", "b.bin", "x/a.xml", "x/y/a.xml", "x/y/[1].txt", "x/y/1.txt", "x/y/^.txt", "x\ny.txt"]


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("a.xml", ["a.xml"]),
        ("*.xml", ["a.xml"]),
        ("?.bin", ["b.bin"]),
        ("*", ["a.xml", "b.bin", "x\ny.txt"]),
        ("x/*", ["x/a.xml"]),
        ("x/*/a.xml", ["x/y/a.xml"]),
        ("x/**", ["x/a.xml", "x/y/a.xml", "x/y/[1].txt", "x/y/1.txt", "x/y/^.txt"]),
        ("**/a.xml", ["a.xml", "x/a.xml", "x/y/a.xml"]),
        ("x/**/a.xml", ["x/a.xml", "x/y/a.xml"]),
        ("**.xml", ["a.xml", "x/a.xml", "x/y/a.xml"]),
        ("**", PATHS),
        # A path counts as itself, whatever is in it.
        ("x/y/[1].txt", ["x/y/[1].txt", "x/y/1.txt"]),
        ("x/y/[!1^].txt", None),
        ("x/y/[!1].txt", ["x/y/^.txt"]),
        ("x**.xml", ["x/a.xml", "x/y/a.xml"]),
        ("x**y**.txt", ["x/y/[1].txt", "x/y/1.txt", "x/y/^.txt", "x\ny.txt"]),
        ("[ab].*", ["a.xml", "b.bin"]),
        ("x[/]a.xml", None),
        ("*.XML", None),
        ("x", None),
        ("x/", None),
        ("[", None),
        ("a.xm(l", None),
    ],
)
def test_a_pattern_matches_whole_paths(pattern: str, matches: list[str] | None) -> None:
    if matches is None:
        with pytest.raises(NotFound, match="matches no file of vad:1"):
            Patterns(pattern).select(PATHS, "vad:1")
    else:
        assert Patterns(pattern).select(PATHS, "vad:1") == matches


def test_every_pattern_needs_a_match() -> None:
    with pytest.raises(NotFound, match=r"'\*\.pt'.*It has 'a\.xml', .* and 3 more"):
        Patterns(["*.xml", "*.pt"]).select(PATHS, "vad:1")


def test_many_stars_take_no_time() -> None:
    assert not Patterns("*" + "a*" * 50 + "b").match("a" * 1000)
    assert not Patterns("**/a/" * 50 + "b").match("a/" * 500 + "a")
    with pytest.raises(InvalidArgument, match="too many"):
        Patterns("a**" * 50)


@pytest.mark.parametrize("files", [[], "", ["a", ""]])
def test_no_pattern_is_refused(files: str | list[str]) -> None:
    with pytest.raises(InvalidArgument, match="files"):
        Patterns(files)
