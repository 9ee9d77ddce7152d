"""Counts calls, as the interceptor reports them (`transport.grpc.interceptors.telemetry.MethodObserver`)."""

from collections.abc import Callable, Iterable

from prometheus_client import Counter

from registry_service.observability.metrics import Metrics

Metadata = Callable[[], Iterable[tuple[str, str | bytes]]]
Ended = Callable[[str, float], None]


class CountedMethod:
    """The metrics of one method's calls. Looks up the labelled metrics once, and not for every call."""

    def __init__(self, metrics: Metrics, service: str, method: str) -> None:
        self._calls = metrics.calls
        self._labels = service, method
        self._by_code: dict[str, Counter] = {}
        self._seconds = metrics.call_seconds.labels(service, method)
        self._in_flight = metrics.calls_in_flight.labels(service, method)
        self.received: Callable[[int], None] = metrics.received_bytes.labels(service, method).inc
        self.sent: Callable[[int], None] = metrics.sent_bytes.labels(service, method).inc
        self._counter("OK")

    def begin(self, _metadata: Metadata) -> Ended:
        """See `transport.grpc.calls.MethodObserver`."""
        self._in_flight.inc()
        return self._end

    def _end(self, code: str, seconds: float) -> None:
        self._in_flight.dec()
        self._seconds.observe(seconds)
        (self._by_code.get(code) or self._counter(code)).inc()

    def _counter(self, code: str) -> Counter:
        counter = self._by_code[code] = self._calls.labels(*self._labels, code)
        return counter
