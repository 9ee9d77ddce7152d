"""Looks at the dependencies, and says so to probes."""

import logging
import threading
from collections.abc import Callable, Sequence

from registry_service.domain.artifact_store import ArtifactStore
from registry_service.domain.errors import RegistryError, UnavailableError
from registry_service.domain.ports import Database
from registry_service.transport.grpc.health_servicer import HealthServicer

logger = logging.getLogger(__name__)

DEPENDENCIES = ("postgres", "artifact_store")
"""In the order in which they are asked."""

MAX_HEALTH_WATCHES = 64
"""Most calls of grpc.health.v1.Health/Watch at once; a load balancer needs one."""

MOST_CLOCK_OFFSET_SECONDS = 3.0
"""How far this machine's clock may be from the database's before that is reported."""

_PATIENCE_SECONDS = 10
"""The checks have timeouts of their own, but a Postgres that takes a query and says nothing is waited for longer."""


class HealthMonitor:
    """Checks Postgres and the artifact store again and again, and keeps the health service up to date."""

    def __init__(
        self, database: Database, store: ArtifactStore, services: Sequence[str], *, interval_seconds: float
    ) -> None:
        self.servicer = HealthServicer(
            services, most_watches=MAX_HEALTH_WATCHES, most_watches_of_address=MAX_HEALTH_WATCHES // 2
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
        """What is away, None while everything answers."""
        return self._error

    def answered(self, dependency: str) -> bool:
        """Whether one of DEPENDENCIES answered when it was last asked."""
        return self._answered[dependency]

    @property
    def clock_offset(self) -> float | None:
        """By how many seconds this machine's clock is ahead of the database's; None where they are about the same."""
        return self._clock_offset

    def start(self) -> None:
        """Checks once, then in the background."""
        self._check_patiently()
        self._thread.start()

    def stop(self) -> None:
        """Says NOT_SERVING for good, so that load balancers look elsewhere while calls finish."""
        self._stopped.set()
        self._error = UnavailableError("The server is shutting down.")
        self.servicer.publish(serving=False)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            self._check_patiently()

    def _check_patiently(self) -> None:
        """Checks; does not take silence for health."""
        check = threading.Thread(target=self._check, name="health-check", daemon=True)
        check.start()
        check.join(_PATIENCE_SECONDS)
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
                # Before the other is asked, which may take its time.
                self._conclude(error)
        if error is None:
            self._conclude(None)

    def _check_database(self) -> None:
        offset = self._database.check()
        found = offset if abs(offset) > MOST_CLOCK_OFFSET_SECONDS else None
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
