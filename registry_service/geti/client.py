"""The port of `domain.geti` on Geti's REST API.

    projects?limit=…                                    pages of projects
    projects/<id>                                       one
    projects/<id>/model_groups                          its groups, with the ids of their versions
    projects/<id>/model_groups/<id>/models/<id>         a version, or by its own id an optimized model
    projects/<id>/code_deployments:prepare              asks for a ZIP of a model
    projects/<id>/code_deployments/<id>[/download]      how far that is; the ZIP

all under `api/<version>/organizations/<id>/workspaces/<id>`, with the key in the
header `x-api-key`. The key is sent nowhere else, and stands in no log and no error.
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

from registry_service.domain.artifact_store import CHUNK_SIZE
from registry_service.domain.errors import (
    GetiDeniedError,
    GetiDeploymentError,
    GetiRefusedError,
    GetiUnavailableError,
    ProjectNotFoundError,
    RegistryError,
)
from registry_service.domain.geti import ModelDetails, ModelKey, Project, ProjectSummary
from registry_service.geti import answers
from registry_service.geti.answers import MalformedError, Object

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_PAGE_SIZE = 100
_MAX_PROJECTS = 10_000
_MAX_ANSWER_BYTES = 32 * 1024 * 1024
# One listing, and all of them together, ask for so many things at once.
_WORKERS = 8
_CONNECTIONS = 64
# So many calls may wait for Geti to show projects.
_LISTINGS = 8
_DENIED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
# These pass, and have changed nothing.
_BUSY = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
_PASSING = _BUSY | {HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT}
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_FAILED = {"FAILED", "ERROR", "CANCELLED", "CANCELED", "ABORTED"}
_POLL_GROWTH = 1.5
# So soon is noticed that nobody waits any more.
_ATTENTION_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Where a workspace is, and what opens it."""

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
class Patience:
    """How long, and how often, is tried. In seconds, where nothing else is said."""

    attempts: int = 3
    """In all."""
    retry: float = 0.3
    """Before the second attempt; twice as long before each further one, and somewhat less by chance."""
    connect: float = 5
    answer: float = 30
    """Between two pieces of an answer."""
    listing: float = 60
    """For all that one listing asks."""
    poll: float = 0.25
    """Between the first two looks at a deployment; then longer and longer."""
    poll_most: float = 10
    deployment: float = 1800
    """Until a deployment is ready."""
    place: float = 3
    """For others whose listings are under way."""
    slowest: float = 16 * 1024
    """Bytes a second, on average over `answer`, under which an answer counts as broken off."""


class HttpGeti:
    """`domain.geti.Geti` over HTTP. Its connections are kept until it is closed."""

    def __init__(self, workspace: Workspace, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._base = workspace.url
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="geti")
        self._places = threading.BoundedSemaphore(_LISTINGS)
        self._http = httpx.Client(
            headers={"x-api-key": workspace.token},
            timeout=httpx.Timeout(self._patience.answer, connect=self._patience.connect),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_WORKERS),
            verify=workspace.verify,
            # Wherever a redirect leads, the key is not for it.
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._http.close()

    def list_projects(self) -> Sequence[ProjectSummary]:
        """See the port."""
        deadline = time.monotonic() + self._patience.listing
        found: dict[str, ProjectSummary] = {}
        url: str | None = f"{self._base}/projects?limit={_PAGE_SIZE}"
        received = 0
        with self._place(), _malformed_is_unavailable():
            while url is not None:
                page = self._json("GET", url, deadline)
                values = answers.objects(page, "projects")
                known = len(found)
                for value in values:
                    project = answers.project(value)
                    found.setdefault(project.id, project)
                received += len(values)
                if len(found) > _MAX_PROJECTS:
                    raise MalformedError(f"more than {_MAX_PROJECTS} projects")
                # A server that sends what it has sent before will go on doing so.
                url = self._next_page(url, page, received) if len(found) > known else None
        return list(found.values())

    def with_models(self, projects: Sequence[ProjectSummary]) -> Sequence[Project]:
        """See the port."""
        deadline = time.monotonic() + self._patience.listing
        with self._place(), _malformed_is_unavailable():
            # In two rounds, as a task that waits for others of its pool could wait for ever.
            groups = self._all(
                lambda project: answers.objects(
                    self._json("GET", self._url("projects", project.id, "model_groups"), deadline), "model_groups"
                ),
                projects,
            )
            addresses = [
                self._url(
                    *("projects", project.id, "model_groups", answers.text(group, "id")),
                    *("models", answers.text(version, "id")),
                )
                for project, groups_of_one in zip(projects, groups, strict=True)
                for group in groups_of_one
                for version in answers.objects(group, "models")
            ]
            versions = iter(self._all(lambda url: answers.model_version(self._json("GET", url, deadline)), addresses))
            return [
                Project(
                    id=project.id,
                    name=project.name,
                    creation_time=project.creation_time,
                    task_types=project.task_types,
                    model_groups=tuple(
                        answers.model_group(group, [next(versions) for _ in answers.objects(group, "models")])
                        for group in groups_of_one
                    ),
                )
                for project, groups_of_one in zip(projects, groups, strict=True)
            ]

    def get_project(self, project_id: str) -> ProjectSummary:
        """See the port."""

        def missing(status: int) -> RegistryError | None:
            # An id that could be none of Geti's is a bad request there.
            return ProjectNotFoundError(project_id) if status in {400, 404} else None

        with self._place(), _malformed_is_unavailable():
            return answers.project(self._json("GET", self._url("projects", project_id), refusal=missing))

    def get_model(self, project_id: str, key: ModelKey) -> ModelDetails:
        """See the port."""
        url = self._url("projects", project_id, "model_groups", key.group_id, "models", key.id)
        with _malformed_is_unavailable():
            return answers.model_details(self._json("GET", url))

    def prepare_deployment(self, project_id: str, key: ModelKey, proceed: Callable[[], None]) -> str:
        """See the port."""

        def refused(status: int) -> RegistryError | None:
            if 400 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT:
                return GetiRefusedError(f"Geti refuses to prepare the model {key.id!r}.", model_id=key.id)
            return None

        deadline = time.monotonic() + self._patience.deployment
        body = {"models": [{"model_id": key.id, "model_group_id": key.group_id}]}
        pause = self._patience.poll
        with _malformed_is_unavailable():
            url = f"{self._url('projects', project_id)}/code_deployments:prepare"
            deployment = self._json("POST", url, refusal=refused, json=body)
            deployment_id = answers.text(deployment, "id")
            while True:
                proceed()
                state = answers.text(deployment, "state").upper()
                if state == "DONE":
                    return deployment_id
                if state in _FAILED:
                    raise GetiDeploymentError(f"Geti failed to prepare the model {key.id!r}.", model_id=key.id)
                if time.monotonic() + pause > deadline:
                    raise GetiDeploymentError(
                        f"Geti did not prepare the model {key.id!r} within {self._patience.deployment:g} s.",
                        model_id=key.id,
                    )
                _sleep(pause, proceed)
                pause = min(pause * _POLL_GROWTH, self._patience.poll_most)
                deployment = self._json("GET", self._url("projects", project_id, "code_deployments", deployment_id))

    def download_deployment(self, project_id: str, deployment_id: str) -> Iterator[bytes]:
        """See the port."""
        url = self._url("projects", project_id, "code_deployments", deployment_id, "download")
        response = self._open("GET", url, headers={"Accept-Encoding": "identity"})
        with closing(response), _failure_is_unavailable():
            _expect_success(response, None)
            buffer = bytearray()
            for piece in self._steadily(response.iter_bytes()):
                buffer += piece
                if len(buffer) >= CHUNK_SIZE:
                    yield bytes(buffer)
                    buffer.clear()
            if buffer:
                yield bytes(buffer)

    @contextmanager
    def _place(self) -> Iterator[None]:
        """Give one of the places of those who look at projects: a Geti that does not answer takes no more threads.

        Raises:
            GetiUnavailableError: There is none.
        """
        if not self._places.acquire(timeout=self._patience.place):
            logger.warning("%d listings wait for Geti already", _LISTINGS)
            raise GetiUnavailableError
        try:
            yield
        finally:
            self._places.release()

    def _url(self, *parts: str) -> str:
        return "/".join((self._base, *map(_segment, parts)))

    def _next_page(self, url: str, page: Object, received: int) -> str | None:
        """Returns where a listing goes on, None where it ends (`MalformedError`)."""
        link = page.get("next_page")
        if link:
            try:
                own, following = httpx.URL(url), httpx.URL(url).join(str(link))
            except httpx.InvalidURL as error:
                raise MalformedError("next_page is no address") from error
            # Any other is not to have the key.
            if (own.scheme, own.netloc) != (following.scheme, following.netloc):
                raise MalformedError("next_page leads elsewhere")
            return str(following)
        total = page.get("project_counts")
        if total is None:
            total = received + 1 if len(page["projects"]) >= _PAGE_SIZE else received
        if not isinstance(total, int):
            raise MalformedError("project_counts is no integer")
        return f"{self._base}/projects?limit={_PAGE_SIZE}&skip={received}" if total > received else None

    def _all(self, ask: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Asks for all, several at once, and returns the answers in order; the first that fails ends it."""
        futures: list[Future[Result]] = [self._pool.submit(copy_context().run, ask, item) for item in items]
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
        """Asks once, and again where that may help, and returns the answer.

        Args:
            method: GET or POST.
            url: Whole address.
            deadline: Nothing is asked after this time, of the monotonic clock.
            refusal: Says what a status of 4xx means, but for the ones of a wrong key.
            options: See httpx.

        Raises:
            RegistryError: What `refusal` says.
            MalformedError: The answer is no JSON object.
        """
        response = self._open(method, url, deadline, **options)
        with closing(response), _failure_is_unavailable():
            _expect_success(response, refusal)
            data = bytearray()
            for piece in self._steadily(response.iter_bytes()):
                data += piece
                if len(data) > _MAX_ANSWER_BYTES:
                    raise MalformedError(f"more than {_MAX_ANSWER_BYTES} bytes")
            return answers.parse(bytes(data))

    def _steadily(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Hands on what arrives, as long as it does not merely drip (`httpx.ReadTimeout`).

        Only the time that is spent on waiting for it counts, and not that of whoever takes it.
        """
        waited, received = 0.0, 0
        while True:
            begun = time.monotonic()
            piece = next(pieces, None)
            if piece is None:
                return
            waited += time.monotonic() - begun
            received += len(piece)
            if waited >= self._patience.answer:
                if received < waited * self._patience.slowest:
                    raise httpx.ReadTimeout(f"{received} bytes in {waited:.1f} s")
                waited, received = 0.0, 0
            yield piece

    def _open(self, method: str, url: str, deadline: float = float("inf"), **options: Any) -> httpx.Response:
        """Asks, again where that may help, and returns the answer of whatever status, its body unread."""
        pause = self._patience.retry
        for attempt in range(1, self._patience.attempts + 1):
            if time.monotonic() > deadline:
                logger.warning("Geti took longer than %s s", self._patience.listing)
                break
            try:
                response = self._http.send(self._http.build_request(method, url, **options), stream=True)
            except httpx.HTTPError as error:
                logger.warning("Geti did not answer %s %s (attempt %d): %r", method, _path(url), attempt, error)
                if method != "GET" and not isinstance(error, _UNSENT):
                    raise GetiUnavailableError from error
            else:
                if response.status_code not in (_PASSING if method == "GET" else _BUSY):
                    return response
                response.close()
                logger.warning("Geti answered %d to %s %s", response.status_code, method, _path(url))
            if attempt < self._patience.attempts:
                time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - chance keeps clients apart, no secrets
                pause *= 2
        raise GetiUnavailableError


def _segment(text: str) -> str:
    """Writes a text as one segment of an address, which leads nowhere else."""
    return quote(text, safe="").replace(".", "%2E") if text in {".", ".."} else quote(text, safe="")


def _path(url: str) -> str:
    return httpx.URL(url).raw_path.decode("ascii", "replace")


def _sleep(seconds: float, proceed: Callable[[], None]) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _ATTENTION_SECONDS))
        proceed()


def _expect_success(response: httpx.Response, refusal: Callable[[int], RegistryError | None] | None) -> None:
    status = response.status_code
    if response.is_success:
        return
    logger.warning("Geti answered %d to %s %s", status, response.request.method, _path(str(response.request.url)))
    if status in _DENIED:
        raise GetiDeniedError
    raise (refusal and refusal(status)) or GetiUnavailableError()


@contextmanager
def _failure_is_unavailable() -> Iterator[None]:
    """Turns what breaks off while it is read into the domain's error."""
    try:
        yield
    except httpx.HTTPError as error:
        logger.warning("an answer of Geti broke off: %r", error)
        raise GetiUnavailableError from error


@contextmanager
def _malformed_is_unavailable() -> Iterator[None]:
    try:
        yield
    except MalformedError as error:
        logger.warning("an answer of Geti is not what it should be: %s", error)
        raise GetiUnavailableError from error
