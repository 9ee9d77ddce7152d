"""Files of certificates that change under us."""

import logging
import os
from pathlib import Path

import pytest

from registry_service.certificates import Certificate, CertificateError, CertificateFiles
from tests.s3_server import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def watched(authority: Authority, folder: Path) -> tuple[Certificate, CertificateFiles]:
    """A certificate in a folder, and its files, taken once."""
    certificate = Certificate(folder / "server.crt", folder / "server.key")
    files = CertificateFiles([certificate], [authority.ca])
    files.read()
    return certificate, files


def copy(authority: Authority, name: str, folder: Path) -> None:
    issued = authority.issue(name)
    folder.mkdir(exist_ok=True)
    (folder / "server.crt").write_bytes(issued.cert.read_bytes())
    (folder / "server.key").write_bytes(issued.key.read_bytes())


def test_what_has_not_changed_is_not_taken_again(authority: Authority, tmp_path: Path) -> None:
    copy(authority, "first", tmp_path / "mounted")
    _, files = watched(authority, tmp_path / "mounted")
    assert files.read_if_renewed() is None


def test_files_that_are_written_in_place_are_taken_once_both_fit(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "mounted"
    copy(authority, "first", folder)
    certificate, files = watched(authority, folder)
    second = authority.issue("second")
    certificate.chain.write_bytes(second.cert.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert files.read_if_renewed() is None
        assert files.read_if_renewed() is None
    assert len(caplog.records) == 1
    assert "the private key does not match the certificate" in caplog.text
    certificate.private_key.write_bytes(second.key.read_bytes())
    contents = files.read_if_renewed()
    assert contents is not None
    assert contents[certificate.chain] == second.cert.read_bytes()
    assert contents[certificate.private_key] == second.key.read_bytes()
    assert contents[authority.ca] == authority.ca.read_bytes()
    assert files.read_if_renewed() is None


def test_a_folder_that_is_swapped_by_its_link_is_noticed(authority: Authority, tmp_path: Path) -> None:
    # As Kubernetes renews the files of a secret.
    copy(authority, "first", tmp_path / "data-1")
    copy(authority, "second", tmp_path / "data-2")
    (tmp_path / "data").symlink_to("data-1")
    _, files = watched(authority, tmp_path / "data")
    (tmp_path / "data.new").symlink_to("data-2")
    os.replace(tmp_path / "data.new", tmp_path / "data")  # noqa: PTH105 (a link, not what it leads to)
    assert files.read_if_renewed() is not None


def test_files_that_are_away_for_a_moment_are_no_renewal(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "mounted"
    copy(authority, "first", folder)
    _, files = watched(authority, folder)
    folder.rename(tmp_path / "away")
    assert files.read_if_renewed() is None
    (tmp_path / "away").rename(folder)
    assert files.read_if_renewed() is None


@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_told_with_its_file(authority: Authority, tmp_path: Path, content: bytes) -> None:
    issued = authority.issue()
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content)
    for certificates, authorities in (
        ([Certificate(bad, issued.key)], []),
        ([Certificate(issued.cert, bad)], []),
        ([], [bad]),
    ):
        with pytest.raises(CertificateError, match=str(bad)):
            CertificateFiles(certificates, authorities).read()
