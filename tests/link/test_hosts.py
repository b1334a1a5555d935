"""hosts.yaml: what it states, how it is made and changed, and its errors."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ataraxis.config import ConfigError
from ataraxis.errors import AccessDenied, HostUnavailable
from ataraxis.link.hosts import Hosts, LabHost, SpoolFolder, size_of

LAB = {"acq": "192.0.2.10", "gpu": "192.0.2.11:8000", "behaviour": "[::1]:7411"}
TEXT = """\
lab: rig
me: gpu
hosts:
  acq:       {address: "192.0.2.10:7411", tags: [camera]}
  gpu:       {address: "192.0.2.11:7411", tags: [gpu]}
  behaviour: {address: "192.0.2.12:7411"}
carrier: zenoh                   # or tls
certificate: gpu.pem             # beside this file; key mode 0600
key: gpu.key
authority: authority.pem
spool: {directory: /var/tmp/ataraxis-spool, bytes: 20 GB}
mirrors:                         # standing ones: there whenever both agents are
  - {stream: camera, host: acq, policy: lossless}
may:                             # what others may do here; default: read
  acq: [read]
  behaviour: [read, run]         # run: start processors here
modules: [mylab.processors]      # importable functions that `run` may name
"""


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    pytest.importorskip("cryptography", reason="certificates need cryptography")
    Hosts.create(tmp_path / "rig", "rig", LAB)
    return tmp_path / "rig"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_of_the_guide_is_read(tmp_path: Path) -> None:
    hosts = Hosts.load(written(tmp_path / "hosts.yaml", TEXT))
    assert hosts.me_host == LabHost("192.0.2.11:7411", ["gpu"])
    assert hosts.address_of("behaviour") == "192.0.2.12:7411"
    assert hosts.rights_of("acq") == {"read"}
    assert hosts.rights_of("behaviour") == {"read", "run"}
    assert hosts.rights_of("gpu") == {"read"}
    assert hosts.rights_of("stranger") == set()
    assert hosts.spool.limit() == 20_000_000_000
    assert hosts.mirrors[0].policy == "lossless"
    assert hosts.key_path == tmp_path / "gpu.key"


def test_a_lab_is_made(lab: Path) -> None:
    for host in LAB:
        hosts = Hosts.load(lab / host / "hosts.yaml")
        assert (hosts.lab, hosts.me) == ("rig", host)
        assert hosts.address_of("acq") == "192.0.2.10:7411"
        hosts.check_files()
    assert Hosts.load(lab) == Hosts.load(lab / "acq")
    for path in lab.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    with pytest.raises(FileExistsError, match="has a lab"):
        Hosts.create(lab, "rig", LAB)


@pytest.mark.parametrize(
    ("name", "hosts"),
    [
        ("a rig", LAB),
        ("rig", {"../up": "a"}),
        ("rig", {"acq": "a b"}),
        ("rig", {"acq": "a:b"}),
        ("rig", {"acq": "::1"}),
        ("rig", {"authority": "a"}),
        ("rig", {}),
    ],
)
def test_a_lab_that_is_not_valid_is_not_made(
    name: str, hosts: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"name|address|host"):
        Hosts.create(tmp_path / "rig", name, hosts)
    assert not (tmp_path / "rig").exists()


def test_a_host_is_added_everywhere(lab: Path) -> None:
    new = Hosts.load(lab / "gpu").add("arena", "192.0.2.13")
    assert new.me == "arena"
    assert new.path == lab / "arena" / "hosts.yaml"
    new.check_files()
    for host in (*LAB, "arena"):
        assert Hosts.load(lab / host).address_of("arena") == "192.0.2.13:7411"


def test_an_address_is_changed_and_the_certificate_stays(lab: Path) -> None:
    before = (lab / "gpu" / "gpu.pem").read_bytes()
    Hosts.load(lab).add("gpu", "192.0.2.99")
    assert Hosts.load(lab / "acq").address_of("gpu") == "192.0.2.99:7411"
    assert (lab / "gpu" / "gpu.pem").read_bytes() == before


def test_a_revoked_host_gets_another_certificate(lab: Path) -> None:
    before = (lab / "gpu" / "gpu.pem").read_bytes()
    revoked = Hosts.load(lab / "acq").revoke("gpu")
    assert len(revoked) == 1
    for host in ("acq", "behaviour"):
        hosts = Hosts.load(lab / host)
        assert hosts.revoked == {revoked[0]: "gpu"}
        assert hosts.name_of("gpu") == "gpu~2"
        assert hosts.name_of("acq") == "acq"
    assert Hosts.load(lab / "gpu").revoke("gpu") == []
    Hosts.load(lab / "gpu").add("gpu", "192.0.2.11")
    assert {Hosts.load(lab / host).name_of("gpu") for host in LAB} == {"gpu~2"}
    assert (lab / "gpu" / "gpu.pem").read_bytes() != before
    Hosts.load(lab / "gpu").check_files()


def test_comments_of_the_file_stay(lab: Path) -> None:
    path = lab / "acq" / "hosts.yaml"
    path.write_text("# our rig\n" + path.read_text())
    Hosts.load(lab).revoke("gpu")
    assert path.read_text().startswith("# our rig\n")


def test_changes_need_the_authority(tmp_path: Path) -> None:
    folder = tmp_path / "gpu"
    folder.mkdir()
    hosts = Hosts.load(written(folder / "hosts.yaml", TEXT))
    for change in (lambda: hosts.add("x", "y"), lambda: hosts.revoke("acq")):
        with pytest.raises(AccessDenied, match="ataraxis hosts init"):
            change()


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "hint"),
    [
        ("me: gpu", "me: gpo", 2, "me", "did you mean 'gpu'?"),
        ("  acq: [read]", "  acw: [read]", 15, "may.acw", "did you mean 'acq'?"),
        ("host: acq", "host: ack", 13, "mirrors[0].host", "did you mean 'acq'?"),
        ("host: acq", "host: gpu", 13, "mirrors[0].host", "its streams are here"),
        ("lab: rig", "lab: 'a/b'", 1, "lab", ""),
        ("carrier: zenoh", "carier: zenoh", 7, "carier", "did you mean 'carrier'?"),
        ("carrier: zenoh", "carrier: zenho", 7, "carrier", "did you mean 'zenoh'?"),
        ('"192.0.2.10:7411"', '"192.0.2.10:x"', 4, "hosts['acq']", ""),
        ("20 GB", "20 GX", 11, "spool", ""),
        (
            "[read, run]",
            "[read, runs]",
            16,
            "may['behaviour'][1]",
            "did you mean 'run'?",
        ),
    ],
)
def test_errors_have_line_field_and_hint(
    old: str, new: str, line: int, field: str, hint: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "hosts.yaml", TEXT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        Hosts.load(path)
    problem = caught.value.errors[0]
    assert (problem.line, problem.field) == (line, field)
    assert hint in problem.hint


def test_the_file_is_found(
    tmp_path: Path, lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ATARAXIS_HOSTS", raising=False)
    with pytest.raises(FileNotFoundError, match="ATARAXIS_HOSTS"):
        Hosts.load()
    (tmp_path / ".config" / "ataraxis").mkdir(parents=True)
    written(tmp_path / ".config" / "ataraxis" / "hosts.yaml", TEXT)
    assert Hosts.load().me == "gpu"
    monkeypatch.setenv("ATARAXIS_HOSTS", str(lab / "acq" / "hosts.yaml"))
    assert Hosts.load().me == "acq"


def test_a_host_that_is_not_listed(lab: Path) -> None:
    with pytest.raises(HostUnavailable, match="did you mean 'acq'"):
        Hosts.load(lab).address_of("acw")


def test_files_of_the_certificate_are_checked(lab: Path) -> None:
    hosts = Hosts.load(lab / "gpu")
    hosts.key_path.chmod(0o640)
    with pytest.raises(AccessDenied, match="chmod 600"):
        hosts.check_files()
    hosts.key_path.unlink()
    with pytest.raises(AccessDenied, match="hosts init"):
        hosts.check_files()
    hosts.certificate = ""
    with pytest.raises(AccessDenied, match="certificate"):
        hosts.check_files()


def test_sizes() -> None:
    assert size_of("10kB") == 10_000
    assert size_of("2 GiB") == 2**31
    assert 0 < SpoolFolder("/nonexistent/place").limit() <= 20_000_000_000
    for text in ("", "GB", "-1 GB", "1 XB"):
        with pytest.raises(ValueError, match="size in bytes"):
            size_of(text)
