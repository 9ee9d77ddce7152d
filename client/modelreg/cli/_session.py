"""One run of `mreg`: its global options, the registry, the output."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from modelreg.cli._failures import Remarks
from modelreg.cli._output import Output, note
from modelreg.cli._text import printable

if TYPE_CHECKING:
    from modelreg import Registry

FORMATS = ("human", "json", "jsonl", "quiet")
_REGISTRY_OPTIONS = ("url", "profile", "timeout", "ca_file", "client_certificate", "client_key", "insecure")


class Session:
    """One run of `mreg`. Use it as a context manager, which closes the connections."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        """The global options that were given, by name."""
        self._cleanup = ExitStack()
        self.remarks = Remarks()

    @property
    def registry_arguments(self) -> dict[str, Any]:
        """The global options that `Registry` takes."""
        return {name: self.options[name] for name in _REGISTRY_OPTIONS if name in self.options}

    @cached_property
    def registry(self) -> Registry:
        """The registry of the global options, the environment or the profile. The first use imports gRPC."""
        # In here, because the imports take most of the time in which commands start.
        from modelreg import Registry  # noqa: PLC0415
        from modelreg._results import MESSAGES_ARE_KEPT  # noqa: PLC0415
        from modelreg.urls import DEFAULT_URL  # noqa: PLC0415

        if self.options.get("debug"):
            _log_to_stderr()
        else:
            self._cleanup.callback(_note_warnings())
        if self.output.is_json:
            token = MESSAGES_ARE_KEPT.set(True)
            self._cleanup.callback(MESSAGES_ARE_KEPT.reset, token)
        registry = self._cleanup.enter_context(Registry(**self.registry_arguments))
        self.remarks.is_default_url = registry.url == DEFAULT_URL
        self.remarks.timeout = self.options.get("timeout", self.remarks.timeout)
        return registry

    @cached_property
    def output(self) -> Output:
        """Where results are printed."""
        return Output(self.options.get("format", "human"))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleanup.close()


def _log_to_stderr() -> None:
    import logging  # noqa: PLC0415 - slow to import

    class Formatter(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record), lines=True)

    handler = logging.StreamHandler()
    handler.setFormatter(Formatter("%(asctime)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("modelreg").setLevel(logging.DEBUG)


def _note_warnings() -> Callable[[], None]:
    """Print the warnings of the library to stderr. Return a function that ends it."""
    import logging  # noqa: PLC0415 - slow to import

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(f"Warning: {record.getMessage()}")

    logger, handler = logging.getLogger("modelreg"), Notes(logging.WARNING)
    logger.addHandler(handler)
    return lambda: logger.removeHandler(handler)
