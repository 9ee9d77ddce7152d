"""Certificates in files: read and check them, and read them again when they are renewed."""

import logging
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from registry_service.domain.user_error import UserError

logger = logging.getLogger(__name__)

_Fingerprint = tuple[tuple[int, int, int], ...]


class CertificateError(UserError):
    """A certificate or key is unusable. The message names the file, for the operator of the server."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain and its private key, in PEM files."""

    chain: Path
    private_key: Path

    def check(self) -> None:
        """Check that both files can be read and match.

        Raises:
            CertificateError: They cannot, or do not.
        """
        try:
            # Without a password, OpenSSL would prompt for one at the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.chain, self.private_key, password="")
        except (OSError, ValueError) as error:
            raise CertificateError(f"{self.chain} and {self.private_key}: {_reason(error)}") from error


@dataclass(frozen=True, slots=True)
class ClientTls:
    """TLS of a client towards a server on this host, whose name the client does not know.

    The server must have one of the certificates in the file `trust`, or one that is signed by them.
    """

    trust: Path
    own: Certificate | None = None
    """The client's certificate, for servers that require one."""

    def context(self) -> ssl.SSLContext:
        """Return the context for a connection.

        Raises:
            CertificateError: The client's certificate or key is unusable.
        """
        context = ssl.create_default_context(cafile=self.trust)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.own is not None:
            self.own.check()
            context.load_cert_chain(self.own.chain, self.own.private_key)
        return context


class CertificateFiles:
    """A set of certificate files. Other programs may replace the files at any time, one after the other."""

    def __init__(self, certificates: Sequence[Certificate], authorities: Sequence[Path]) -> None:
        """Store the paths, without reading the files.

        Args:
            certificates: Certificates with their private keys.
            authorities: Files of CA certificates.
        """
        self._certificates = certificates
        self._authorities = authorities
        self._accepted: _Fingerprint | None = None
        self._rejected: _Fingerprint | None = None
        self._lock = threading.Lock()

    def read(self) -> dict[Path, bytes]:
        """Read and check all files.

        Raises:
            CertificateError: A file is unusable, or changed during the check.
        """
        with self._lock:
            return self._read(self._fingerprint())

    def read_if_renewed(self) -> dict[Path, bytes] | None:
        """Read all files if one has changed since the last read; return None if none has, or if they are unusable.

        Unusable files, such as a certificate whose key is not renewed yet, are logged
        once and checked again when they change.
        """
        with self._lock:
            try:
                fingerprint = self._fingerprint()
                if fingerprint in {self._accepted, self._rejected}:
                    return None
                contents = self._read(fingerprint)
            except CertificateError as error:
                logger.warning("changed certificates are unusable; the previous ones stay in use: %s", error)
                return None
        logger.info("certificates renewed")
        return contents

    def _read(self, fingerprint: _Fingerprint) -> dict[Path, bytes]:
        self._rejected = fingerprint
        for certificate in self._certificates:
            certificate.check()
        for authority in self._authorities:
            _check_authority(authority)
        contents = {path: _read(path) for path in self._paths()}
        if self._fingerprint() != fingerprint:
            self._rejected = None
            raise CertificateError("the files changed while they were read")
        self._accepted, self._rejected = fingerprint, None
        return contents

    def _paths(self) -> list[Path]:
        pairs = [path for pair in self._certificates for path in (pair.chain, pair.private_key)]
        return [*pairs, *self._authorities]

    def _fingerprint(self) -> _Fingerprint:
        """Return a value that changes when a file changes. A missing file counts too, as it may be moved just now."""
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
            return "the private key does not match the certificate"
        return f"not a usable PEM certificate or key ({error.reason or error})"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
