"""How transfers report their progress."""

import io
import sys
import types
import warnings
from typing import Any

import pytest
from modelreg.errors import InvalidArgument
from modelreg.progress import Progress


class Terminal(io.StringIO):
    """A stream on which a person reads."""

    def isatty(self) -> bool:
        return True


class GoneTerminal(Terminal):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(text)

    def flush(self) -> None:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _bar_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelreg.progress._BAR_DELAY_SECONDS", 0)


def shown(monkeypatch: pytest.MonkeyPatch, stream: Any, option: Any) -> str:
    """Return what a transfer shows."""
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(option, description="vad:1.0", total=4_000_000) as progress:
        progress.update(2_000_000)
        progress.update(4_000_000)
    return stream.getvalue() if isinstance(stream, io.StringIO) else ""


def test_a_bar_appears_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    output = shown(monkeypatch, Terminal(), None)

    assert "vad:1.0" in output
    assert "100%" in output
    assert "4.00M" in output


def test_a_name_in_a_bar_cannot_take_over_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(None, description="vad\x1b[2J\n\u202e:1.0", total=4) as progress:
        progress.update(2)

    assert "vad�[2J��:1.0" in terminal.getvalue()


def test_a_bar_appears_without_a_total(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(None, description="vad:1.0", total=None) as progress:
        for done in (0, 1_000_000, 2_000_000):
            progress.update(done)

    assert "2.00M" in terminal.getvalue()


def test_no_bar_appears_for_what_is_done_already(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress(None, description="vad:1.0", total=7) as progress:
        progress.update(7)

    assert terminal.getvalue() == ""


def test_nothing_appears_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, io.StringIO(), None) == ""
    assert shown(monkeypatch, Terminal(), False) == ""
    assert shown(monkeypatch, None, None) == ""


def test_a_bar_appears_anywhere_if_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "vad:1.0" in shown(monkeypatch, io.StringIO(), True)


def test_a_bar_appears_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))

    assert "vad:1.0" in shown(monkeypatch, io.StringIO(), None)


def test_a_notebook_without_widgets_gets_a_bar_and_no_warning(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", types.ModuleType("ipykernel.zmqshell"))
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    for name in ("tqdm.auto", "tqdm.autonotebook", "tqdm.notebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    warnings.simplefilter("always")

    assert "vad:1.0" in shown(monkeypatch, io.StringIO(), None)
    assert [str(found.message) for found in recwarn] == []


def test_a_terminal_that_is_gone_ends_no_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    shown(monkeypatch, GoneTerminal(), True)


def test_a_function_gets_the_bytes_done_and_the_total() -> None:
    reported: list[tuple[int, int | None]] = []

    with Progress(lambda done, total: reported.append((done, total)), description="vad:1.0", total=None) as progress:
        progress.update(1)
        progress.update(2, 2)

    assert reported == [(1, None), (2, 2)]


def test_anything_else_is_refused() -> None:
    options: list[Any] = ["yes", 1, []]
    for option in options:
        with pytest.raises(InvalidArgument, match="progress"):
            Progress(option, description="vad:1.0", total=None)
