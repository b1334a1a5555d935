"""Names in errors, tokens and their hosts, modes of recordings, limits."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT
from remote_rig import connected, folder, served

import ataraxis.datamux as dm
from ataraxis import DataLogger, LogPackage
from ataraxis.config.limits import FILES, Limits, table
from ataraxis.datamux.price import Account, Ledger, Price
from ataraxis.datamux.remote.access import identity_of, token_from
from ataraxis.errors import AccessDenied, ConfigWarning, RemoteError, TooExpensive
from ataraxis.log.modes import VARIABLE, checked_mode

TOKEN = "t" * 43
DOCS = ROOT / "docs"


# ---- tokens


def test_a_token_of_the_environment_goes_to_its_host_alone(monkeypatch):
    monkeypatch.setenv("ATARAXIS_TOKEN", f"lab-3={TOKEN}")
    assert identity_of("lab-3", None, None, 8765).token == TOKEN
    assert identity_of("LAB-3", None, None, 8765).token == TOKEN
    assert identity_of("lab-4", None, None, 8765).token is None
    assert identity_of("127.0.0.1", None, None, 8765).token is None
    monkeypatch.setenv("ATARAXIS_TOKEN", f"lab-3:8765={TOKEN}")
    assert identity_of("lab-3", None, None, 8765).token == TOKEN
    assert identity_of("lab-3", None, None, 8766).token is None
    monkeypatch.setenv("ATARAXIS_TOKEN", TOKEN)
    assert identity_of("127.0.0.1", None, None, 8765).token == TOKEN
    with pytest.raises(AccessDenied, match="lab-3=TOKEN"):
        identity_of("lab-3", None, None, 8765)
    assert identity_of("lab-3", "x" * 43, None, 8765).token == "x" * 43


def test_the_token_of_a_loopback_server_is_in_the_context_as_long_as_it_runs(
    tmp_path, context
):
    with served(tmp_path) as server:
        file = context / f".serve-{server.port}.token"
        status = file.stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert file.read_text().strip() == server.token
        with connected(server) as api:
            assert api.list_collections() == []
        other = served(tmp_path)
        with other as second, connected(second) as api:
            assert api.list_collections() == []
        file.chmod(0o644)  # readable by others: not used
        with pytest.raises(AccessDenied):
            dm.RemoteAPI().connect("127.0.0.1", server.port)
    assert not file.exists()


def test_a_token_that_a_killed_server_left_is_swept(tmp_path, context):
    left = context / ".serve-1.token"
    left.write_text(TOKEN)
    with served(tmp_path) as server:
        assert not left.exists()
        assert (context / f".serve-{server.port}.token").exists()


def test_an_open_server_asks_for_none_and_only_here(tmp_path, context):
    with served(tmp_path, is_open=True) as server:
        assert server.token is None
        assert [*context.iterdir()] == []
        with connected(server) as api:
            assert api.list_collections() == []
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ataraxis.datamux", "serve", "-H", "0.0.0.0",
         "--open"], capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--open is for this machine only" in done.stderr


def test_no_command_takes_a_secret_on_its_command_line():
    from ataraxis.cli import main

    def commands(group, path=()):
        for name, command in getattr(group, "commands", {}).items():
            yield (*path, name), command
            yield from commands(command, (*path, name))

    for name, command in commands(main):
        for parameter in command.params:
            assert not {"--token", "--password", "--secret"} & {*parameter.opts}, name


# ---- errors have names


def test_a_missing_or_wrong_certificate_is_named(tmp_path):
    gone, wrong = tmp_path / "gone.pem", tmp_path / "wrong.pem"
    wrong.write_text("nothing")
    with pytest.raises(FileNotFoundError, match=r"gone\.pem"):
        identity_of("lab-3", TOKEN, str(gone), 1)
    with pytest.raises(AccessDenied, match=r"wrong\.pem"):
        identity_of("lab-3", TOKEN, str(wrong), 1)
    with pytest.raises(FileNotFoundError, match=r"gone\.pem"):
        dm.Server(dm.API(tmp_path, tmp_path), certificate=gone)
    with pytest.raises(AccessDenied, match=r"wrong\.pem"):
        dm.Server(dm.API(tmp_path, tmp_path), certificate=wrong)


@pytest.mark.parametrize("content", [b"\xff" * 43, b"short", b""])
def test_a_file_that_holds_no_token_is_named(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(AccessDenied, match=str(path)):
        token_from(path)


def test_a_huge_number_in_one_description_spoils_only_itself(tmp_path):
    folder(tmp_path)
    (tmp_path / "huge.collection.json").write_text('{"name": ' + "9" * 100_000 + "}")
    with pytest.warns(ConfigWarning, match="huge"):
        found = dm.API(tmp_path, tmp_path).list_collections()
    assert [collection.id for collection in found] == ["eyes"]


# ---- recordings


@pytest.mark.parametrize("layout", ["journal", "npy"])
@pytest.mark.parametrize(("mode", "files"), [(None, 0o600), ("0640", 0o640)])
def test_a_recording_is_its_owners_alone_unless_a_mode_is_given(
    tmp_path, monkeypatch, layout, mode, files
):
    if mode is not None:
        monkeypatch.setenv(VARIABLE, mode)
    before = os.umask(0o077 if mode else 0)
    try:
        logger = DataLogger(tmp_path, "made", layout=layout)
        logger.start()
        logger.input_queue.put(LogPackage(np.uint8(1), np.uint64(7), np.zeros(3, "u1")))
        logger.stop()
    finally:
        os.umask(before)
    made = Path(logger.output_directory)
    folders = 0o700 if mode is None else 0o750
    assert stat.S_IMODE(made.stat().st_mode) == folders
    kept = [path for path in made.rglob("*") if path.suffix in (".axj", ".npy")]
    assert kept
    for path in kept:
        assert stat.S_IMODE(path.stat().st_mode) == files, path


@pytest.mark.parametrize("mode", ["0666", "0400", "0777", "x", "0602"])
def test_a_mode_that_lets_every_user_write_is_refused(mode):
    with pytest.raises(ValueError, match="mode"):
        checked_mode(mode)


# ---- limits


def test_every_limit_is_in_the_docs_with_its_value():
    """One table, in one module, in the docs, and printed by ``serve --limits``."""
    page = (DOCS / "explanation" / "security.md").read_text()
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ataraxis.datamux", "serve", "--limits"],
        capture_output=True, text=True, check=True, timeout=90,
    )  # fmt: skip
    for name, value, about in [*table(Limits()), *table(FILES)]:
        assert f"| `{name}` | {value} | {about} |" in page
        assert re.search(rf"^{name} +{re.escape(value)}  {re.escape(about)}$",
                         done.stdout, re.M)  # fmt: skip


def test_those_who_take_what_they_can_leave_a_share_to_the_next():
    ledger = Ledger(Limits(memory_bytes=1000, all_memory_bytes=1000))
    accounts = [Account(ledger) for _ in range(9)]

    def spend(account):
        while True:
            account._take(Price(memory_bytes=1))

    for account in accounts:
        with pytest.raises(TooExpensive, match="all_memory_bytes"):
            spend(account)
    shares = [account.spent.memory_bytes for account in accounts]
    assert shares[0] == 500
    assert ledger.spent.memory_bytes < 1000
    assert min(shares) >= 1


def test_a_request_that_fails_costs_nothing(tmp_path):
    with served(tmp_path) as server, connected(server) as api:
        for _ in range(40):
            with pytest.raises(RemoteError, match="Ask for"):
                api.proxy_live_stream(
                    "sim", "camera", {"shape": [30_000, 30_000]}, print
                )
        ack = api.proxy_live_stream("sim", "sine", {}, lambda item: None)
        api.stop_task(ack.randseq)


def test_what_a_stream_cost_is_paid_back_when_it_ends(tmp_path):
    from deadline import wait_until

    folder(tmp_path)
    with served(tmp_path) as server, connected(server) as api:
        ledger = server._server_limits.ledger
        acks = [
            api.proxy_live_stream("sim", "sine", {}, lambda item: None)
            for _ in range(3)
        ]
        assert ledger.spent.streams == 3
        for ack in acks:
            api.stop_task(ack.randseq)
        wait_until(lambda: ledger.spent == Price(), 30)
