"""Collects garbage periodically, beside the calls of a server."""

import logging
import threading
from typing import Protocol

from registry_service.domain.caller import acting_as_registry
from registry_service.domain.errors import DatabaseUnavailableError
from registry_service.services.garbage_collection import GarbageCollector

logger = logging.getLogger(__name__)


class GarbageCollectionObserver(Protocol):
    """Receives the outcome of each run. Never raises."""

    def garbage_collected(self, *, uploads: int, objects: int, failed: int) -> None:
        """Called after a run, with how much it removed and how much it could not remove."""

    def garbage_collection_failed(self) -> None:
        """Called after a run that failed as a whole."""


class GarbageCollectionJob:
    """Collects garbage periodically.

    Args:
        collector: Collects garbage once.
        interval_seconds: The time between two runs.
        observer: Receives the outcomes.
    """

    def __init__(
        self, collector: GarbageCollector, *, interval_seconds: float, observer: GarbageCollectionObserver
    ) -> None:
        self._collector = collector
        self._interval_seconds = interval_seconds
        self._observer = observer
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="garbage-collection", daemon=True)

    def start(self) -> None:
        """Begin with the first interval."""
        self._thread.start()

    def begin_stop(self) -> None:
        """Start no further run."""
        self._stopped.set()

    def join(self) -> None:
        """Wait for a run that is under way."""
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds):
            try:
                with acting_as_registry():
                    report = self._collector.collect()
            except DatabaseUnavailableError:
                logger.warning("garbage collection skipped: the database is unavailable")
            except Exception:
                # The next run tries again.
                logger.exception("garbage collection failed")
            else:
                self._observer.garbage_collected(
                    uploads=len(report.uploads), objects=len(report.objects), failed=len(report.failed)
                )
                continue
            self._observer.garbage_collection_failed()
