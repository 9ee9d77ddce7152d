"""Envoy's admin interface, on a Unix socket that is for us alone."""

import http.client
import json
import socket
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

_TIMEOUT_SECONDS = 4.0


class EnvoyAdmin:
    """Asks one Envoy.

    Every method raises OSError or http.client.HTTPException when it does not answer
    as it should.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def answers(self) -> bool:
        """Return whether it answers at all. Raises nothing."""
        try:
            self._ask("GET", "/ready")
        except http.client.RemoteDisconnected:
            return False
        except http.client.HTTPException:  # it is starting or draining, and says so
            return True
        except OSError:
            return False
        return True

    def refuse_connections(self) -> None:
        """Has it listen no more, and close each connection after the answer to the request that it has."""
        self._ask("POST", "/healthcheck/fail")
        self._ask("POST", "/drain_listeners")

    def gauges(self, names: Sequence[str]) -> dict[str, int]:
        """Returns the values of gauges."""
        pattern = "|".join(name.replace(".", r"\.") for name in names)
        answer = json.loads(self._ask("GET", f"/stats?format=json&filter={quote(f'^({pattern})$')}"))
        return {entry["name"]: entry["value"] for entry in answer["stats"] if "name" in entry}

    def _ask(self, method: str, path: str) -> bytes:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, path)
            with connection.getresponse() as answer:
                if answer.status != HTTPStatus.OK:
                    raise http.client.HTTPException(f"{path} was answered {answer.status}")
                return answer.read()
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("envoy", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(str(self._path))
