"""The door: no page of another site, no other host name, no token on a command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from view_rig import COMMAND, ViewProcess
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ataraxis.errors import AccessDenied
from ataraxis.viewer.door import HEADERS, STATIC, Door, token_of

pytestmark = pytest.mark.slow

TOKEN = "t" * 32
HERE = {"Host": "127.0.0.1:8787"}


def status(door: Door, target: str, method: str = "GET", **headers: str) -> int:
    return door.answer(method, target, {**HERE, **headers}).status.value


@pytest.fixture
def door() -> Door:
    return Door(8787, TOKEN)


# ---- requests

OWN = "http://127.0.0.1:8787"
SOCKET = f"/socket?token={TOKEN}"


@pytest.mark.parametrize(
    ("target", "headers", "expected"),
    [
        ("/", {}, 200),
        ("/index.html", {}, 200),
        ("/page.js", {"Host": "localhost:8787"}, 200),
        ("/", {"Host": "evil.example:8787"}, 403),
        ("/", {"Host": "127.0.0.1"}, 403),
        ("/", {"Host": "127.0.0.1:1"}, 403),
        ("/", {"Host": ""}, 403),
        ("/page.js", {"Origin": "https://evil.example"}, 403),
        ("/page.js", {"Origin": "null"}, 403),
        ("/page.js", {"Origin": OWN}, 200),
        ("/nothing.js", {}, 404),
        ("/../door.py", {}, 404),
        ("/..%2fdoor.py", {}, 404),
        ("/static/page.js", {}, 404),
        ("//page.js", {}, 404),
        (SOCKET, {"Origin": OWN}, 101),
        (SOCKET, {"Origin": "http://localhost:8787"}, 101),
        (SOCKET, {}, 403),
        (SOCKET, {"Origin": "http://evil.example:8787"}, 403),
        # Rebinding: a name of another site that resolves to this machine.
        (SOCKET, {"Host": "evil.example:8787", "Origin": "http://evil.example:8787"},
         403),
        ("/socket", {"Origin": OWN}, 403),
        ("/socket?token=" + "u" * 32, {"Origin": OWN}, 403),
        ("/socket?token=ü", {"Origin": OWN}, 403),
    ],
    ids=str,
)  # fmt: skip
def test_who_is_answered(
    door: Door, target: str, headers: dict[str, str], expected: int
) -> None:
    assert status(door, target, **headers) == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get_and_head(door: Door, method: str) -> None:
    answer = door.answer(method, "/", HERE)
    assert answer.status.value == 405
    assert answer.headers["Allow"] == "GET, HEAD"


def test_head_has_the_length_and_no_body(door: Door) -> None:
    whole, head = (door.answer(m, "/page.js", HERE) for m in ("GET", "HEAD"))
    assert head.headers == whole.headers
    assert int(head.headers["Content-Length"]) == len(whole.body) > 1000
    assert head.body == b""


def test_every_answer_has_the_headers(door: Door) -> None:
    for target in ("/", "/style.css", "/nothing", "/socket"):
        headers = door.answer("GET", target, HERE).headers
        assert headers.items() >= HEADERS.items()
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_names_behind_a_proxy() -> None:
    door = Door(8787, TOKEN, ["lab.example"], "/user/me/proxy/8787")
    there = {"Host": "lab.example", "Origin": "https://lab.example"}
    assert status(door, "/user/me/proxy/8787/page.js", **there) == 200
    assert status(door, "/user/me/proxy/8787", **there) == 200
    assert status(door, f"/user/me/proxy/8787{SOCKET}", **there) == 101


# ---- the page's files


def test_no_html_is_made_of_data() -> None:
    for path in STATIC.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        banned = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\("
        )
        assert re.findall(banned, text) == [], path.name
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == [], path.name


def test_the_page_has_no_script_or_style_within() -> None:
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    assert (
        re.findall(r"<script(?! type=\"module\" src=)|<style|\sstyle=|\son\w+=", text)
        == []
    )


def test_the_build_installs_the_page() -> None:
    build = (ROOT / "ataraxis" / "meson.build").read_text(encoding="utf-8")
    assert "path.parent.name != 'static'" in build
    assert {p.suffix for p in STATIC.iterdir()} == {".html", ".css", ".js", ".svg"}


# ---- the token


def test_a_token_of_a_file_of_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o644)
    with pytest.raises(AccessDenied, match="chmod 600"):
        token_of(path)
    path.chmod(0o600)
    assert token_of(path) == TOKEN
    monkeypatch.setenv("ATARAXIS_VIEW_TOKEN", "e" * 40)
    assert token_of() == "e" * 40
    monkeypatch.setenv("ATARAXIS_VIEW_TOKEN", "short")
    with pytest.raises(AccessDenied, match="at least 22"):
        token_of()
    monkeypatch.delenv("ATARAXIS_VIEW_TOKEN")
    assert len(token_of()) == 32
    assert token_of() != token_of()


def test_a_token_is_not_an_option() -> None:
    done = subprocess.run(
        [*COMMAND, "view", "--token", TOKEN], capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "No such option" in done.stderr


# ---- a server


def test_a_server_asks_for_token_host_and_origin() -> None:
    with ViewProcess() as view:
        assert view.ask("/")[0] == 200
        assert view.ask("/", Host="evil.example")[0] == 403
        assert view.ask("/", Origin="https://evil.example")[0] == 403
        assert view.ask("/../../etc/passwd")[0] == 404
        code, headers, body = view.ask("/page.js", "HEAD")
        assert (code, body) == (200, b"")
        assert headers.items() >= HEADERS.items()
        assert view.ask("/", "DELETE")[0] in (400, 405)
        url = f"ws://127.0.0.1:{view.port}/socket"
        for query, origin in (
            ("", view.origin), ("?token=" + "x" * 32, view.origin),
            (f"?token={view.token}", None), (f"?token={view.token}", "http://evil"),
        ):  # fmt: skip
            with (
                pytest.raises(InvalidStatus) as refused,
                connect(url + query, origin=origin),
            ):
                pass
            assert refused.value.response.status_code == 403
        with view.page() as page:
            assert page.take()
        command = Path(f"/proc/{view.pid}/cmdline").read_bytes()
        assert view.token.encode() not in command
        assert view.stop() == 0


def test_a_token_in_the_environment_or_a_file(tmp_path: Path) -> None:
    with ViewProcess(ATARAXIS_VIEW_TOKEN=TOKEN) as view:
        assert view.token == TOKEN
    path = tmp_path / "token"
    path.write_text("f" * 30)
    path.chmod(0o600)
    with ViewProcess("--token-file", str(path)) as view:
        assert view.token == "f" * 30


MESSAGES = [
    "not json", "[]", "{}", '{"op": "stop"}', '{"op": "ack", "tick": 10}',
    '{"op": "ack"}', '{"op": "show", "panel": 0, "kind": "traces", "stream": "s"}',
    '{"op": "show", "panel": 1, "kind": "traces", "stream": 3}',
    '{"op": "show", "panel": 1, "kind": "all", "stream": "s"}',
    '{"op": "show", "panel": 1, "kind": "traces", "stream": "s", "columns": 0}',
    '{"op": "show", "panel": 1, "kind": "traces", "stream": "s", "seconds": 0}',
    '{"op": "show", "panel": 1, "kind": "traces", "stream": "s", "channels": [5]}',
    '{"op": "show", "panel": 1, "kind": "traces", "stream": "s", "filter": "x"}',
    '{"op": "hide", "panel": true}', b"\0\1", "[" * 4000, "x" * 5000,
]  # fmt: skip


def test_a_message_that_is_not_one_ends_its_connection_alone() -> None:
    with ViewProcess() as view, view.page() as other:
        assert other.take()
        for message in MESSAGES:
            with view.page() as page:
                page.line.send(message)
                with pytest.raises(ConnectionClosed) as closed:
                    page.take_on()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code in (1003, 1009), message
        other.show(1, "s")
        assert other.take()
        assert view.stop() == 0


def test_a_ninth_page_and_a_seventeenth_panel_are_refused() -> None:
    from contextlib import ExitStack

    with ViewProcess() as view, ExitStack() as pages:
        for _ in range(8):
            assert pages.enter_context(view.page()).take()
        with view.page() as ninth, pytest.raises(ConnectionClosed, match="8 pages"):
            ninth.take_on()
    with ViewProcess() as view, view.page() as page:
        for k in range(1, 17):
            page.show(k, "s")
        assert page.take()
        page.show(17, "s")
        with pytest.raises(ConnectionClosed, match="16 panels"):
            page.take_on()


def test_another_address_is_refused_with_the_way_to_do_it() -> None:
    done = subprocess.run(
        [*COMMAND, "view", "--host", "0.0.0.0"], capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ssh -L 8787:127.0.0.1:8787 you@rig" in done.stderr


def test_without_the_extra_the_command_names_it() -> None:
    code = (
        "import sys; sys.modules['websockets'] = None\n"
        "from ataraxis.cli import main; main(['view', '--no-open'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        check=False, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 1
    assert 'pip install "ataraxis[view]"' in done.stderr
