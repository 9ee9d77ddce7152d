"""A client of Envoy's admin interface on a private Unix socket."""

import http.client
import json
import socket
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

_TIMEOUT_SECONDS = 4.0


class EnvoyAdmin:
    """The admin interface of one Envoy.

    Unless stated otherwise, a method raises OSError or http.client.HTTPException when the request fails.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def responds(self) -> bool:
        """Return whether Envoy responds at all. Raises nothing."""
        try:
            self._request("GET", "/ready")
        except http.client.RemoteDisconnected:
            return False
        except http.client.HTTPException:  # a status other than 200: Envoy is starting or draining
            return True
        except OSError:
            return False
        return True

    def refuse_connections(self) -> None:
        """Stop to listen, and close each connection after the response to its current request."""
        self._request("POST", "/healthcheck/fail")
        self._request("POST", "/drain_listeners")

    def gauges(self, names: Sequence[str]) -> dict[str, int]:
        """Return the values of gauges by name."""
        pattern = "|".join(name.replace(".", r"\.") for name in names)
        response = json.loads(self._request("GET", f"/stats?format=json&filter={quote(f'^({pattern})$')}"))
        return {entry["name"]: entry["value"] for entry in response["stats"] if "name" in entry}

    def _request(self, method: str, path: str) -> bytes:
        connection = _UnixConnection(self._path)
        try:
            connection.request(method, path)
            with connection.getresponse() as response:
                if response.status != HTTPStatus.OK:
                    raise http.client.HTTPException(f"{method} {path} returned status {response.status}")
                return response.read()
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
