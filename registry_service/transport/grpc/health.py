"""Checks the dependencies and publishes the server's health."""

import logging
import threading
from collections.abc import Callable, Sequence

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import RegistryError, UnavailableError
from registry_service.domain.ports import Database
from registry_service.transport.grpc.health_servicer import HealthServicer

logger = logging.getLogger(__name__)

DEPENDENCIES = ("postgres", "artifact_store")
"""In the order of the checks."""

MAX_HEALTH_WATCHES = 64
"""Limit of concurrent calls of grpc.health.v1.Health/Watch. A load balancer needs one."""

MAX_CLOCK_OFFSET_SECONDS = 3.0
"""Difference between this machine's clock and the database's from which it is reported."""

_CHECK_TIMEOUT_SECONDS = 10
"""Each check has its own timeout, but one does not bound a Postgres that accepts a query and never responds."""


class HealthMonitor:
    """Checks Postgres and the artifact store periodically, and updates the health service."""

    def __init__(
        self, database: Database, store: ArtifactStore, services: Sequence[str], *, interval_seconds: float
    ) -> None:
        self.servicer = HealthServicer(
            services, max_watches=MAX_HEALTH_WATCHES, max_watches_per_address=MAX_HEALTH_WATCHES // 2
        )
        self._database = database
        self._store = store
        self._interval = interval_seconds
        self._stopped = threading.Event()
        self._error: RegistryError | None = UnavailableError("The server is starting.")
        self._asked = DEPENDENCIES[0]
        self._answered = dict.fromkeys(DEPENDENCIES, False)
        self._clock_offset: float | None = None
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    @property
    def error(self) -> RegistryError | None:
        """The error of the unavailable dependency; None while all of them respond."""
        return self._error

    def answered(self, dependency: str) -> bool:
        """Return whether a dependency, one of DEPENDENCIES, responded to its last check."""
        return self._answered[dependency]

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which this machine's clock is ahead of the database's; None if the difference is small."""
        return self._clock_offset

    def start(self) -> None:
        """Check once, then periodically in the background."""
        self._check_with_timeout()
        self._thread.start()

    def stop(self) -> None:
        """Report NOT_SERVING from now on, so that load balancers choose other servers while calls finish."""
        self._stopped.set()
        self._error = UnavailableError("The server is shutting down.")
        self.servicer.publish(serving=False)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._check_with_timeout()

    def _check_with_timeout(self) -> None:
        """Check, and treat a check that does not return as failed."""
        check = threading.Thread(target=self._check, name="health-check", daemon=True)
        check.start()
        check.join(_CHECK_TIMEOUT_SECONDS)
        if check.is_alive():
            self._answered[self._asked] = False
            self._conclude(UnavailableError("A dependency does not respond."))
        while check.is_alive() and not self._stopped.is_set():
            check.join(self._interval)

    def _check(self) -> None:
        error: RegistryError | None = None
        for dependency, check in zip(DEPENDENCIES, (self._check_database, self._store.check), strict=True):
            self._asked = dependency
            found = self._ask(check)
            self._answered[dependency] = found is None
            if error is None and found is not None:
                error = found
                # Before the next check, which may take long.
                self._conclude(error)
        if error is None:
            self._conclude(None)

    def _check_database(self) -> None:
        offset = self._database.check()
        found = offset if abs(offset) > MAX_CLOCK_OFFSET_SECONDS else None
        if found is not None and self._clock_offset is None:
            logger.warning(
                "the clock of this machine is %.1f s %s that of the database, which is the one that counts",
                abs(found),
                "ahead of" if found > 0 else "behind",
            )
        elif found is None and self._clock_offset is not None:
            logger.info("the clock of this machine is that of the database again")
        self._clock_offset = found

    def _ask(self, check: Callable[[], None]) -> RegistryError | None:
        try:
            check()
        except RegistryError as error:
            return error
        except Exception:
            logger.exception("a health check failed in an unexpected way")
            return UnavailableError("A dependency does not respond.")
        return None

    def _conclude(self, error: RegistryError | None) -> None:
        if self._stopped.is_set():
            return
        if (error is None) != (self._error is None):
            logger.log(logging.INFO if error is None else logging.WARNING, "ready" if error is None else str(error))
        self._error = error
        self.servicer.publish(serving=error is None)
