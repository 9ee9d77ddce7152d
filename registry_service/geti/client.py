"""The client of Geti's REST API, an adapter of the port `Geti`.

    projects?limit=…                                    a page of projects
    projects/<id>                                       a project
    projects/<id>/model_groups                          its model groups, with the ids of their versions
    projects/<id>/model_groups/<id>/models/<id>         a model version or an optimized model
    projects/<id>/code_deployments:prepare              starts to prepare a ZIP file of a model
    projects/<id>/code_deployments/<id>[/download]      the state of the preparation; the ZIP file

All paths are under `api/<version>/organizations/<id>/workspaces/<id>`. The API key is
in the header `x-api-key`. It is sent nowhere else, and never logged or part of an error.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from typing_extensions import override

from registry_service.domain.artifact_store import CHUNK_SIZE
from registry_service.domain.errors import (
    GetiDeniedError,
    GetiDeploymentError,
    GetiRefusedError,
    GetiUnavailableError,
    ProjectNotFoundError,
    RegistryError,
)
from registry_service.geti import responses
from registry_service.geti.port import Geti, ModelDetails, ModelKey, Project, ProjectSummary
from registry_service.geti.responses import MalformedResponseError, Object

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_PAGE_SIZE = 100
_MAX_PROJECTS = 10_000
_MAX_RESPONSE_BYTES = 32 * 1024 * 1024
# Simultaneous requests of all listings, and simultaneous connections.
_WORKERS = 8
_CONNECTIONS = 64
# Calls that may list projects at the same time.
_LISTINGS = 8
_DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
# Temporary errors; with the first two, Geti has not begun to process the request.
_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_TEMPORARY = _BUSY | {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FAILED = {"FAILED", "ERROR", "CANCELLED", "CANCELED", "ABORTED"}
_POLL_GROWTH = 1.5
# Interval of the checks for cancellation during a wait.
_CANCELLATION_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The address and the API key of a workspace."""

    host: str
    """URL of the server."""
    api_version: str
    organization_id: str
    workspace_id: str
    token: str = field(repr=False)
    verify: bool = True
    """Whether the server's certificate is checked."""

    @property
    def url(self) -> str:
        """What every address begins with."""
        parts = ("api", self.api_version, "organizations", self.organization_id, "workspaces", self.workspace_id)
        return "/".join((self.host.rstrip("/"), *map(_segment, parts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Timeouts, retries and intervals, in seconds unless stated otherwise."""

    attempts: int = 3
    """Number of attempts of a request, the first included."""
    retry: float = 0.3
    """Delay before the second attempt. It doubles for each further one, and is shortened by a random part."""
    connect: float = 5
    read: float = 30
    """Between two chunks of a response."""
    listing: float = 60
    """For all requests of one listing."""
    poll: float = 0.25
    """First interval of the requests for a deployment's state. It grows up to `max_poll`."""
    max_poll: float = 10
    deployment: float = 1800
    """Until a deployment is ready."""
    slot: float = 3
    """Wait for other listings."""
    min_bytes_per_second: float = 16 * 1024
    """Average rate over `read` below which a response counts as interrupted."""


class HttpGeti(Geti):
    """The port `Geti` over HTTP. Keeps its connections until it is closed."""

    def __init__(self, workspace: Workspace, timeouts: Timeouts | None = None) -> None:
        self._timeouts = timeouts or Timeouts()
        self._base = workspace.url
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="geti")
        self._slots = threading.BoundedSemaphore(_LISTINGS)
        self._http = httpx.Client(
            headers={"x-api-key": workspace.token},
            timeout=httpx.Timeout(self._timeouts.read, connect=self._timeouts.connect),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_WORKERS),
            verify=workspace.verify,
            # The API key must not be sent to the target of a redirect.
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    @override
    def list_projects(self) -> Sequence[ProjectSummary]:
        """See the port."""
        deadline = time.monotonic() + self._timeouts.listing
        found: dict[str, ProjectSummary] = {}
        url: str | None = f"{self._base}/projects?limit={_PAGE_SIZE}"
        received = 0
        with self._listing_slot(), _malformed_is_unavailable():
            while url is not None:
                page = self._json("GET", url, deadline)
                values = responses.objects(page, "projects")
                known = len(found)
                for value in values:
                    project = responses.project(value)
                    found.setdefault(project.id, project)
                received += len(values)
                if len(found) > _MAX_PROJECTS:
                    raise MalformedResponseError(f"more than {_MAX_PROJECTS} projects")
                # A page without new projects would repeat forever.
                url = self._next_page(url, page, received) if len(found) > known else None
        return list(found.values())

    @override
    def with_models(self, projects: Sequence[ProjectSummary]) -> Sequence[Project]:
        """See the port."""
        deadline = time.monotonic() + self._timeouts.listing
        with self._listing_slot(), _malformed_is_unavailable():
            # In two rounds: a task that waits for other tasks of its pool could deadlock.
            groups = self._map(
                lambda project: responses.objects(
                    self._json("GET", self._url("projects", project.id, "model_groups"), deadline), "model_groups"
                ),
                projects,
            )
            urls = [
                self._url(
                    *("projects", project.id, "model_groups", responses.text(group, "id")),
                    *("models", responses.text(version, "id")),
                )
                for project, groups_of_one in zip(projects, groups, strict=True)
                for group in groups_of_one
                for version in responses.objects(group, "models")
            ]
            versions = iter(self._map(lambda url: responses.model_version(self._json("GET", url, deadline)), urls))
            return [
                Project(
                    id=project.id,
                    name=project.name,
                    creation_time=project.creation_time,
                    task_types=project.task_types,
                    model_groups=tuple(
                        responses.model_group(group, [next(versions) for _ in responses.objects(group, "models")])
                        for group in groups_of_one
                    ),
                )
                for project, groups_of_one in zip(projects, groups, strict=True)
            ]

    @override
    def get_project(self, project_id: str) -> ProjectSummary:
        """See the port."""

        def missing(status: int) -> RegistryError | None:
            # Geti returns 400 for an id of an invalid format.
            return ProjectNotFoundError(project_id) if status in {400, 404} else None

        with self._listing_slot(), _malformed_is_unavailable():
            return responses.project(self._json("GET", self._url("projects", project_id), refusal=missing))

    @override
    def get_model(self, project_id: str, key: ModelKey) -> ModelDetails:
        """See the port."""
        url = self._url("projects", project_id, "model_groups", key.group_id, "models", key.id)
        with _malformed_is_unavailable():
            return responses.model_details(self._json("GET", url))

    @override
    def prepare_deployment(self, project_id: str, key: ModelKey, check_cancelled: Callable[[], None]) -> str:
        """See the port."""

        def refused(status: int) -> RegistryError | None:
            if 400 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT:
                return GetiRefusedError(f"Geti refuses to prepare the model {key.id!r}.", model_id=key.id)
            return None

        deadline = time.monotonic() + self._timeouts.deployment
        body = {"models": [{"model_id": key.id, "model_group_id": key.group_id}]}
        pause = self._timeouts.poll
        with _malformed_is_unavailable():
            url = f"{self._url('projects', project_id)}/code_deployments:prepare"
            deployment = self._json("POST", url, refusal=refused, json=body)
            deployment_id = responses.text(deployment, "id")
            while True:
                check_cancelled()
                state = responses.text(deployment, "state").upper()
                if state == "DONE":
                    return deployment_id
                if state in _FAILED:
                    raise GetiDeploymentError(f"Geti failed to prepare the model {key.id!r}.", model_id=key.id)
                if time.monotonic() + pause > deadline:
                    raise GetiDeploymentError(
                        f"Geti did not prepare the model {key.id!r} within {self._timeouts.deployment:g} s.",
                        model_id=key.id,
                    )
                _sleep(pause, check_cancelled)
                pause = min(pause * _POLL_GROWTH, self._timeouts.max_poll)
                deployment = self._json("GET", self._url("projects", project_id, "code_deployments", deployment_id))

    @override
    def download_deployment(self, project_id: str, deployment_id: str) -> Iterator[bytes]:
        """See the port."""
        url = self._url("projects", project_id, "code_deployments", deployment_id, "download")
        response = self._open("GET", url, headers={"Accept-Encoding": "identity"})
        with closing(response), _broken_is_unavailable():
            _check_status(response, None)
            buffer = bytearray()
            for chunk in self._check_rate(response.iter_bytes()):
                buffer += chunk
                if len(buffer) >= CHUNK_SIZE:
                    yield bytes(buffer)
                    buffer.clear()
            if buffer:
                yield bytes(buffer)

    @contextmanager
    def _listing_slot(self) -> Iterator[None]:
        """Occupy a slot of the limit of listings, so that a Geti that does not respond holds few threads.

        Raises:
            GetiUnavailableError: No slot is free.
        """
        if not self._slots.acquire(timeout=self._timeouts.slot):
            logger.warning("request to Geti rejected: %d listings are already waiting", _LISTINGS)
            raise GetiUnavailableError
        try:
            yield
        finally:
            self._slots.release()

    def _url(self, *parts: str) -> str:
        return "/".join((self._base, *map(_segment, parts)))

    def _next_page(self, url: str, page: Object, received: int) -> str | None:
        """Return the URL of the next page, or None after the last page."""
        link = page.get("next_page")
        if link:
            try:
                own, following = httpx.URL(url), httpx.URL(url).join(str(link))
            except httpx.InvalidURL as error:
                raise MalformedResponseError("next_page is not a URL") from error
            # The API key must not be sent to another server.
            if (own.scheme, own.netloc) != (following.scheme, following.netloc):
                raise MalformedResponseError("next_page is a URL of another server")
            return str(following)
        total = page.get("project_counts")
        if total is None:
            total = received + 1 if len(page["projects"]) >= _PAGE_SIZE else received
        if not isinstance(total, int):
            raise MalformedResponseError("project_counts is not an integer")
        return f"{self._base}/projects?limit={_PAGE_SIZE}&skip={received}" if total > received else None

    def _map(self, request: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Send the requests of all items, several at the same time. Return the results in order, or raise an error."""
        futures: list[Future[Result]] = [self._pool.submit(copy_context().run, request, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _json(
        self,
        method: str,
        url: str,
        deadline: float = float("inf"),
        *,
        refusal: Callable[[int], RegistryError | None] | None = None,
        **options: Any,
    ) -> Object:
        """Send a request, with retries where they may help, and return the JSON object of the response.

        Args:
            method: GET or POST.
            url: The whole URL.
            deadline: No attempt starts after this time of the monotonic clock.
            refusal: Returns the error for a status, or None for the default. Not called for a rejected API key.
            options: See httpx.

        Raises:
            RegistryError: The result of `refusal`, GetiDeniedError or GetiUnavailableError.
            MalformedResponseError: The response is not a JSON object.
        """
        response = self._open(method, url, deadline, **options)
        with closing(response), _broken_is_unavailable():
            _check_status(response, refusal)
            data = bytearray()
            for chunk in self._check_rate(response.iter_bytes()):
                data += chunk
                if len(data) > _MAX_RESPONSE_BYTES:
                    raise MalformedResponseError(f"more than {_MAX_RESPONSE_BYTES} bytes")
            return responses.parse(bytes(data))

    def _check_rate(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks of a response. Only the time of waiting for them counts, and not the consumer's.

        Raises:
            httpx.ReadTimeout: The response is slower than `min_bytes_per_second`.
        """
        waited, received = 0.0, 0
        while True:
            started = time.monotonic()
            chunk = next(chunks, None)
            if chunk is None:
                return
            waited += time.monotonic() - started
            received += len(chunk)
            if waited >= self._timeouts.read:
                if received < waited * self._timeouts.min_bytes_per_second:
                    raise httpx.ReadTimeout(f"{received} bytes in {waited:.1f} s")
                waited, received = 0.0, 0
            yield chunk

    def _open(self, method: str, url: str, deadline: float = float("inf"), **options: Any) -> httpx.Response:
        """Send a request, with retries where they may help, and return the response of any status, its body unread."""
        pause = self._timeouts.retry
        for attempt in range(1, self._timeouts.attempts + 1):
            if time.monotonic() > deadline:
                logger.warning("Geti took longer than %s s", self._timeouts.listing)
                break
            try:
                response = self._http.send(self._http.build_request(method, url, **options), stream=True)
            except httpx.HTTPError as error:
                logger.warning("Geti did not respond to %s %s (attempt %d): %r", method, _path(url), attempt, error)
                if method != "GET" and not isinstance(error, _UNSENT):
                    raise GetiUnavailableError from error
            else:
                if response.status_code not in (_TEMPORARY if method == "GET" else _BUSY):
                    return response
                response.close()
                logger.warning("Geti returned status %d to %s %s", response.status_code, method, _path(url))
            if attempt < self._timeouts.attempts:
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter, not a secret
                pause *= 2
        raise GetiUnavailableError


def _segment(text: str) -> str:
    """Return a text as one segment of a path, with dot segments escaped."""
    return quote(text, safe="").replace(".", "%2E") if text in {".", ".."} else quote(text, safe="")


def _path(url: str) -> str:
    return httpx.URL(url).raw_path.decode("ascii", "replace")


def _sleep(seconds: float, check_cancelled: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (remaining := end - time.monotonic()) > 0:
        time.sleep(min(remaining, _CANCELLATION_SECONDS))
        check_cancelled()


def _check_status(response: httpx.Response, refusal: Callable[[int], RegistryError | None] | None) -> None:
    status = response.status_code
    if response.is_success:
        return
    method, path = response.request.method, _path(str(response.request.url))
    logger.warning("Geti returned status %d to %s %s", status, method, path)
    if status in _DENIED:
        raise GetiDeniedError
    raise (refusal and refusal(status)) or GetiUnavailableError()


@contextmanager
def _broken_is_unavailable() -> Iterator[None]:
    """Raise GetiUnavailableError for an error while a response is read."""
    try:
        yield
    except httpx.HTTPError as error:
        logger.warning("a response of Geti was interrupted: %r", error)
        raise GetiUnavailableError from error


@contextmanager
def _malformed_is_unavailable() -> Iterator[None]:
    """Raise GetiUnavailableError for an invalid response."""
    try:
        yield
    except MalformedResponseError as error:
        logger.warning("a response of Geti is invalid: %s", error)
        raise GetiUnavailableError from error
