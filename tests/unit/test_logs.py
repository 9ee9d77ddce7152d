"""What a line of the log is."""

import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from registry_service import logs
from tests.polling import eventually


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """A log of level WARNING; whatever is changed for it is put back."""
    root, audit = logging.getLogger(), logging.getLogger(logs.AUDIT)
    handlers, level, audit_level = root.handlers[:], root.level, audit.level
    optimized = {
        name: getattr(logging, name) for name in ("_srcfile", "logThreads", "logProcesses", "logMultiprocessing")
    }
    logs.configure("WARNING", tmp_path / "log")
    yield tmp_path / "log"
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    audit.setLevel(audit_level)
    logging.captureWarnings(capture=False)
    for name, value in optimized.items():
        setattr(logging, name, value)


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def record(**members: object) -> logging.LogRecord:
    return logging.makeLogRecord({"name": "a.logger", "levelname": "INFO", "msg": "said", **members})


def line_of(entry: logging.LogRecord) -> dict[str, object]:
    found = json.loads(logs.JsonFormatter().format(entry))
    assert isinstance(found, dict)
    return found


def test_a_line_has_when_how_severe_what_kind_who_and_what() -> None:
    assert line_of(record(created=1_800_000_000.5)) == {
        "time": "2027-01-15T08:00:00.500+00:00",
        "level": "INFO",
        "log": "service",
        "logger": "a.logger",
        "message": "said",
    }


def test_times_are_in_order_and_right_to_the_millisecond() -> None:
    formatter = logs.JsonFormatter()
    moments = [1_800_000_000.0, 1_800_000_000.999_9, 1_800_000_001.001, 1_799_999_999.25, 1_800_000_000.062_5]
    for moment in moments:
        text = str(json.loads(formatter.format(record(created=moment)))["time"])
        assert 0 <= moment - datetime.fromisoformat(text).timestamp() < 0.001_001


def test_what_is_given_as_extra_becomes_members() -> None:
    line = line_of(record(log="access", code="OK", path=Path("/a")))
    assert (line["log"], line["code"], line["path"]) == ("access", "OK", "/a")


def test_ids_of_call_and_trace_are_on_the_lines_of_a_call() -> None:
    request, trace = logs.request_id.set("a-request"), logs.trace_id.set("a" * 32)
    try:
        line = line_of(record())
    finally:
        logs.request_id.reset(request)
        logs.trace_id.reset(trace)
    assert (line["request_id"], line["trace_id"]) == ("a-request", "a" * 32)
    assert not {"request_id", "trace_id"} & line_of(record()).keys()


def test_whatever_is_logged_stays_one_line() -> None:
    text = 'a\nnew line, "quotes", \x00 and \u2028'
    formatted = logs.JsonFormatter().format(record(msg="%s", args=(text,), detail=text))
    assert "\n" not in formatted
    assert json.loads(formatted)["message"] == json.loads(formatted)["detail"] == text


def test_an_exception_is_told(log: Path) -> None:
    try:
        int("no number")
    except ValueError:
        logging.getLogger("a.logger").exception("failed")
    assert "ValueError: invalid literal" in str(lines(log)[0]["exception"])


def test_lines_of_the_audit_log_are_written_at_any_level_others_are_not(log: Path) -> None:
    logging.getLogger(logs.AUDIT).info("change", extra={"log": "audit"})
    logging.getLogger("registry_service.calls").info("call", extra={"log": "access"})
    logging.getLogger("a.logger").warning("trouble")
    assert [(line["log"], line["message"]) for line in lines(log)] == [("audit", "change"), ("service", "trouble")]


def test_lines_of_calls_come_without_a_following_line_in_order_and_with_the_ids_of_their_calls(log: Path) -> None:
    logging.getLogger().setLevel(logging.INFO)
    access = logging.getLogger("registry_service.calls")
    for number in range(100):
        request = logs.request_id.set(f"request-{number}")
        access.info("call", extra={"log": "access", "number": number})
        logs.request_id.reset(request)
    eventually(lambda: len(lines(log)) == 100, 10, "the lines")
    assert [(line["number"], line["request_id"]) for line in lines(log)] == [(n, f"request-{n}") for n in range(100)]


def test_a_line_has_no_ids_of_the_call_that_hurries_it(log: Path) -> None:
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("registry_service.calls").info("call", extra={"log": "access"})
    trace = logs.trace_id.set("a" * 32)
    logging.getLogger("a.logger").error("trouble")
    logs.trace_id.reset(trace)
    assert [line.get("trace_id") for line in lines(log)] == [None, "a" * 32]


def test_a_line_of_another_kind_is_there_at_once_after_those_of_calls_that_came_before(log: Path) -> None:
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("registry_service.calls").info("call", extra={"log": "access"})
    logging.getLogger("a.logger").error("trouble")
    assert [line["message"] for line in lines(log)] == ["call", "trouble"]


def test_lines_of_calls_are_there_when_the_log_is_closed(log: Path) -> None:
    logging.getLogger().setLevel(logging.INFO)
    logging.getLogger("registry_service.calls").info("call", extra={"log": "access"})
    logging.getLogger().handlers[0].close()
    assert [line["message"] for line in lines(log)] == ["call"]


@pytest.fixture
def written() -> list[str]:
    """What a BatchHandler has handed on."""
    return []


@pytest.fixture
def batching(written: list[str]) -> Iterator[logs.BatchHandler]:
    class Target(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            written.append(entry.getMessage() + "\n")

    handler = logs.BatchHandler(Target())
    yield handler
    handler.close()


def test_no_more_is_written_at_once_than_a_pipe_keeps_together(written: list[str], batching: logs.BatchHandler) -> None:
    for number in range(50):
        batching.handle(record(log="access", number=number))
    batching.flush()
    assert max(map(len, written)) <= 4096
    assert [json.loads(line)["number"] for line in "".join(written).splitlines()] == list(range(50))


def test_a_record_that_cannot_be_written_takes_no_other_with_it(
    written: list[str], batching: logs.BatchHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    batching.handle(record(msg="%d", args=("no number",)))
    batching.handle(record(msg="trouble"))
    assert [json.loads(line)["message"] for line in written] == ["a log record could not be formatted", "trouble"]
    assert "no number" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_loses_lines_and_says_nothing_elsewhere(
    log: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (batching,) = [found for found in logging.getLogger().handlers if isinstance(found, logs.BatchHandler)]
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 (closed below)
    target = batching._target
    with monkeypatch.context() as patched:
        patched.setattr(target, "stream", full)
        logging.getLogger("a.logger").error("lost")
    with pytest.raises(OSError, match="No space left"):
        full.close()
    logging.getLogger("a.logger").error("kept")
    assert [line["message"] for line in lines(log)] == ["kept"]
    assert capsys.readouterr().err == ""
