"""Certificates: whom they name, until when, and who may read their keys."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest

from ataraxis.errors import AccessDenied
from ataraxis.link import certificates
from ataraxis.link.certificates import Authority, read_certificate

pytest.importorskip("cryptography", reason="certificates need cryptography")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "authority", "rig")


def test_a_certificate_names_its_host(authority: Authority, tmp_path: Path) -> None:
    facts = authority.issue(tmp_path / "gpu", "gpu", "gpu~2")
    assert read_certificate(tmp_path / "gpu" / "gpu.pem") == facts
    assert (facts.host, facts.name, facts.lab) == ("gpu", "gpu~2", "rig")
    years = (facts.not_after - datetime.datetime.now(datetime.UTC)).days / 365
    assert 9.9 < years <= 10


def test_openssl_accepts_it(authority: Authority, tmp_path: Path) -> None:
    authority.issue(tmp_path / "gpu", "gpu", "gpu")
    for purpose in ("sslclient", "sslserver"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose]
        command += ["-CAfile", "authority.pem", "gpu.pem"]
        try:
            subprocess.run(
                command,
                cwd=tmp_path / "gpu",
                check=True,
                capture_output=True,
                timeout=60,
            )
        except FileNotFoundError:
            pytest.skip("the command openssl is not installed")


def test_every_certificate_of_a_host_is_known(
    authority: Authority, tmp_path: Path
) -> None:
    made = {authority.issue(tmp_path / "gpu", "gpu", "gpu").serial for _ in range(2)}
    authority.issue(tmp_path / "gpu-2", "gpu-2", "gpu-2")
    found = {facts.serial for facts in authority.issued("gpu")}
    assert found == made
    assert authority.issued("acq") == []


def test_keys_of_others_are_refused(authority: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "authority"
    (folder / "authority.key").chmod(0o644)
    with pytest.raises(AccessDenied, match="mode 0644"):
        Authority(folder)
    with pytest.raises(AccessDenied, match="hosts init"):
        Authority(tmp_path / "nowhere")


def test_what_is_not_a_certificate(tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    path.write_text("no")
    with pytest.raises(AccessDenied, match="not a certificate in PEM"):
        read_certificate(path)


def test_cryptography_is_needed_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    with pytest.raises(ImportError, match=r"ataraxis\[cluster\]"):
        Authority.create(tmp_path / "authority", "rig")
    assert not (tmp_path / "authority").exists()


def test_what_getpeercert_returns() -> None:
    given = {
        "subject": ((("organizationName", "rig"),), (("commonName", "gpu"),)),
        "serialNumber": "0A12",
        "notAfter": "Nov 27 19:48:35 2036 GMT",
    }
    facts = certificates.facts_of(given)
    assert (facts.host, facts.lab, facts.serial) == ("gpu", "rig", "a12")
    assert facts.not_after.year == 2036
    with pytest.raises(AccessDenied, match="hosts init"):
        certificates.facts_of({"subject": ()})
