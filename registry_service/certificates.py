"""Certificates in files: read, checked, and read again when they are renewed."""

import logging
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_Signature = tuple[tuple[int, int, int], ...]


class CertificateError(Exception):
    """Files do not hold what they should; the message is for the person who runs the server."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, as files in PEM."""

    chain: Path
    private_key: Path

    def check(self) -> None:
        """Raises CertificateError unless the two can be read and fit together."""
        try:
            # A password, as OpenSSL would ask for one at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.private_key, password="")
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.chain} and {self.private_key}: {_reason(error)}") from error


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How to speak TLS to a server on this host, which goes by a name that we need not know.

    The server must have one of the certificates in the file `trust`, or one that
    they vouch for.
    """

    trust: Path
    own: Certificate | None = None
    """For servers that demand one."""

    def context(self) -> ssl.SSLContext:
        """Makes what `ssl` needs; see `Certificate.check` for what it raises."""
        context = ssl.create_default_context(cafile=self.trust)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.own is not None:
            self.own.check()
            context.load_cert_chain(self.own.chain, self.own.private_key)
        return context


class CertificateFiles:
    """Files of certificates, which others may replace at any time, one after the other."""

    def __init__(self, certificates: Sequence[Certificate], authorities: Sequence[Path]) -> None:
        """Reads nothing yet.

        Args:
            certificates: Pairs of files that have to fit together.
            authorities: Files of CA certificates.
        """
        self._certificates = certificates
        self._authorities = authorities
        self._taken: _Signature | None = None
        self._refused: _Signature | None = None
        self._lock = threading.Lock()

    def take(self) -> dict[Path, bytes]:
        """Reads all files.

        Raises:
            CertificateError: They do not hold what they should.
        """
        with self._lock:
            return self._take(self._signature())

    def take_renewed(self) -> dict[Path, bytes] | None:
        """Reads all files when one has changed since they were last taken, and they fit; else returns None.

        Files that do not fit, as they are half renewed perhaps, are logged once, and
        looked at again when they change.
        """
        with self._lock:
            try:
                signature = self._signature()
                if signature in {self._taken, self._refused}:
                    return None
                contents = self._take(signature)
            except CertificateError as error:
                logger.warning("certificates have changed, but cannot be used; going on with the old ones: %s", error)
                return None
        logger.info("certificates are renewed")
        return contents

    def _take(self, signature: _Signature) -> dict[Path, bytes]:
        self._refused = signature
        for certificate in self._certificates:
            certificate.check()
        for authority in self._authorities:
            _check_authority(authority)
        contents = {path: _read(path) for path in self._paths()}
        if self._signature() != signature:
            self._refused = None
            raise CertificateError("they are being changed just now")
        self._taken, self._refused = signature, None
        return contents

    def _paths(self) -> list[Path]:
        pairs = [path for pair in self._certificates for path in (pair.chain, pair.private_key)]
        return [*pairs, *self._authorities]

    def _signature(self) -> _Signature:
        """What tells one state of the files from another. A file that is away for a moment has none."""
        found = []
        for path in self._paths():
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


def _check_authority(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: {_reason(error)}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        return f"no certificate or key in PEM that can be used ({error.reason or error})"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
