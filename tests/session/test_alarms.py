"""Alarms: who does not look is told, and the recording never waits for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from deadline import wait_until

from ataraxis import Consumer, Producer, Session
from ataraxis.cli import main
from ataraxis.errors import ConfigError
from ataraxis.session import (
    Rig,
    RigAlarm,
    RigHeartbeat,
    RigMail,
    SessionFolder,
    SessionLoss,
)
from ataraxis.session.alarm_process import why
from ataraxis.session.rig import RigSource

SECRET = "s3cret-t0ken"
KEYS = {"session", "host", "kind", "stream", "text", "time", "held_back"}


class Hook(ThreadingHTTPServer):
    """Keeps what it is told; answers `code`, or hangs."""

    daemon_threads = True

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.beats: list[float] = []
        self.code, self.hangs = 200, threading.Event()
        self.go_on = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{SECRET}"

    @property
    def kinds(self) -> list[str]:
        return [body["kind"] for body in self.bodies]

    def end(self) -> None:
        self.go_on.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.hangs.is_set():
            self.server.go_on.wait(60)
        if self.server.code < 400:
            self.server.bodies.append(json.loads(body))
        self._answer()

    def do_GET(self) -> None:
        self.server.beats.append(time.monotonic())
        self._answer()

    def _answer(self) -> None:
        try:
            self.send_response(self.server.code)
            self.send_header("Content-Length", "0")
            self.end_headers()
        except OSError:
            pass

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    yield server
    server.end()


class Mail(socketserver.ThreadingTCPServer):
    """Takes mail, also after STARTTLS and with a login."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.letters: list[bytes] = []
        self.logins: list[str] = []
        self.refuses_login = False
        self.certificate = certificate
        super().__init__(("127.0.0.1", 0), _Talk)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Talk(socketserver.StreamRequestHandler):
    server: Mail

    secure: ssl.SSLSocket | None = None

    def finish(self) -> None:
        super().finish()
        if self.secure is not None:
            self.secure.close()

    def say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self) -> None:
        self.say("220 stub")
        is_secure = False
        while line := self.rfile.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                more = ["STARTTLS"] if self.server.certificate and not is_secure else []
                more += ["AUTH PLAIN"] if is_secure else []
                for name in ["stub", *more]:
                    self.say(f"250-{name}")
                self.say("250 8BITMIME")
            elif verb == "STARTTLS":
                self.say("220 go on")
                assert self.server.certificate is not None
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.server.certificate)
                try:
                    self.secure = secure = context.wrap_socket(
                        self.request, server_side=True
                    )
                except OSError:
                    return
                self.rfile.close()
                self.wfile.close()
                self.rfile, self.wfile = secure.makefile("rb"), secure.makefile("wb", 0)
                is_secure = True
            elif verb == "AUTH":
                self.server.logins.append(line)
                self.say("535 no" if self.server.refuses_login else "235 yes")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (part := self.rfile.readline()) != b".\r\n":
                    lines.append(part)
                self.server.letters.append(b"".join(lines))
                self.say("250 taken")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 fine")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl(1) makes the certificate")
    files = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=lab", "-addext", "subjectAltName=IP:127.0.0.1",
         "-out", files[0], "-keyout", files[1]],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return files


def log_of(session: Session) -> str:
    return SessionFolder(session.directory).log_path.read_text()


def alarm_pid(session: Session) -> int:
    return session._alarms[0].program.process.pid


@pytest.fixture(autouse=True)
def log_on_failure(tmp_path: Path) -> Iterator[None]:
    """Print the log of the session: pytest shows it if the test fails."""
    yield
    for path in tmp_path.glob("*/session.log"):
        sys.stdout.write(path.read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ---- the keys


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {on: [loss, stal], webhook: 'http://x'}", ["[0].on[1]", "mean 'stall'"]),
        ("- {webhook: 'http://x', command: [a]}", ["got command and webhook"]),
        ("- {on: [loss]}", ["give one of command, webhook and mail, got none"]),
        ("- {webhok: 'http://x'}", ["did you mean 'webhook'"]),
        ("- {webhook: 'ftp://x/y'}", ["https://..."]),
        ("- {webhook: 'http://u:p@x/y'}", ["must not have a password"]),
        ("- {mail: {host: h, to: [a@b], password: x}}", ["unknown key 'password'"]),
        ("- {mail: {host: h, to: [a@b], user: x}}", ["needs password_file"]),
        ("- {webhook: 'http://x', again_s: -1}", ["again_s must be at least 0 s"]),
    ],
)
def test_wrong_keys_are_refused_with_their_line(
    text: str, words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(f"sources: {{}}\nalarms:\n  {text}\n")
    with pytest.raises(ConfigError) as caught:
        Rig.from_yaml(path)
    for word in ("rig.yaml:3: alarms[0]", *words):
        assert word in str(caught.value)


def test_alarms_are_kept_in_yaml(tmp_path: Path) -> None:
    mail = RigMail("smtp.example.org", ["a@example.org"], user="a", password_env="PW")
    rig = Rig(
        alarms=[RigAlarm(["loss"], webhook="$HOOK"), RigAlarm(mail=mail)],
        heartbeat=RigHeartbeat("https://example.org/beat"),
    )
    rig.to_yaml(tmp_path / "rig.yaml")
    assert Rig.from_yaml(tmp_path / "rig.yaml") == rig


# ---- ways


def test_a_webhook_gets_json(hook: Hook, tmp_path: Path) -> None:
    alarm = RigAlarm(["loss"], webhook=hook.url)
    with Session("s", directory=tmp_path, alarms=[alarm]) as session:
        session.alarm("stall", "camera", "is not told")
        session.alarm("loss", "camera", "3 frames are missing")
        wait_until(lambda: hook.bodies, 30)
    (body,) = hook.bodies
    assert body.keys() == KEYS
    assert body["session"] == "s"
    assert body["host"] == socket.gethostname()
    assert (body["kind"], body["stream"]) == ("loss", "camera")
    assert body["text"] == "3 frames are missing"
    assert "told: loss to alarms[0] (webhook http://127.0.0.1" in log_of(session)
    assert SECRET not in log_of(session)


def test_a_command_gets_facts_without_a_shell(tmp_path: Path) -> None:
    code = (
        "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps([json.load("
        "sys.stdin), os.environ['ATARAXIS_ALARM_TEXT']]))"
    )
    path = tmp_path / "told; touch x"
    alarm = RigAlarm(command=[sys.executable, "-c", code, str(path)])
    with Session("s", directory=tmp_path, alarms=[alarm]) as session:
        session.alarm("low_disk", "", "$(date) of a disk")
    said, text = json.loads(path.read_text())
    assert said.keys() == KEYS
    assert said["text"] == text == "$(date) of a disk"


@pytest.mark.slow
def test_a_command_that_fails_is_in_the_log_and_a_note(tmp_path: Path) -> None:
    failing = "import sys; sys.exit('no modem')"
    alarms = [
        RigAlarm(command=[sys.executable, "-c", failing]),
        RigAlarm(command=["/no/such/program"]),
    ]
    session = Session("s", directory=tmp_path, alarms=alarms)
    session.alarm("loss", "camera", "x")
    wait_until(lambda: "tried again: exit code 1: no modem" in log_of(session), 30)
    wait_until(lambda: "give the path of a program" in log_of(session), 30)
    verdict = session.close()
    assert verdict.is_trusted
    notes = " ".join(verdict.notes)
    assert "alarm loss to alarms[0] (command " in notes
    assert "alarms[1] (command /no/such/program)" in notes


def test_mail_goes_over_tls_with_a_password(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setenv("LAB_PASSWORD", SECRET)
    server = Mail(certificate)
    try:
        mail = RigMail(
            "127.0.0.1", ["a@example.org"], port=server.port, user="lab",
            password_env="LAB_PASSWORD",
        )  # fmt: skip
        with Session("s", directory=tmp_path, alarms=[RigAlarm(mail=mail)]) as session:
            session.alarm("recorder_down", "camera", "line 1\nline 2")
            wait_until(lambda: server.letters, 30)
    finally:
        server.end()
    assert server.logins
    letter = message_from_bytes(server.letters[0], policy=policy.default)
    assert letter["Subject"].startswith("[ataraxis] s on ")
    assert "recorder_down of 'camera': line 1 line 2" in letter["Subject"]
    assert SECRET not in log_of(session)
    assert SECRET not in str(session.verdict)


def test_a_password_file_that_others_may_read_is_refused(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    path = tmp_path / "password"
    path.write_text(SECRET)
    path.chmod(0o644)
    mail = RigMail("127.0.0.1", ["a@b"], user="u", password_file=str(path))
    session = Session("s", directory=tmp_path, alarms=[RigAlarm(mail=mail)])
    session.alarm("loss", "x", "y")
    assert "chmod 600" in " ".join(session.close().notes)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (smtplib.SMTPAuthenticationError(535, b"no"), "refused user and password"),
        (ConnectionRefusedError(), "is its server running"),
        (socket.gaierror(), "its name is not known"),
        (TimeoutError(), "within 3 s"),
        (ssl.SSLCertVerificationError("self-signed"), "SSL_CERT_FILE"),
    ],
)
def test_why_states_what_to_do(error: Exception, words: str) -> None:
    assert words in why(error, 3)


# ---- the recording never waits


@pytest.mark.slow
def test_a_server_that_hangs_holds_up_nothing(hook: Hook, tmp_path: Path) -> None:
    hook.hangs.set()
    other = tmp_path / "told"
    alarms = [
        RigAlarm(webhook=hook.url, timeout_s=1),
        RigAlarm(command=["touch", str(other)]),
    ]
    session = Session("s", directory=tmp_path, alarms=alarms)
    began = time.monotonic()
    for _ in range(5000):  # more than may wait
        session.alarm("loss", "camera", "x")
    assert time.monotonic() - began < 2
    wait_until(other.exists, 30)  # the other way is not behind it
    wait_until(lambda: "tried again: no answer within 1 s" in log_of(session), 30)
    began = time.monotonic()
    verdict = session.close()
    assert time.monotonic() - began < 15
    assert "alarm loss to alarms[0]" in " ".join(verdict.notes)
    assert verdict.is_trusted


def test_a_server_that_refuses_is_tried_until_it_is_there(tmp_path: Path) -> None:
    port = free_port()
    server = None
    alarm = RigAlarm(webhook=f"http://127.0.0.1:{port}/{SECRET}")
    session = Session("s", directory=tmp_path, alarms=[alarm])
    try:
        session.alarm("loss", "camera", "x")
        wait_until(lambda: "tried again: it refused the" in log_of(session), 30)
        server = ThreadingHTTPServer.__new__(Hook)
        server.bodies, server.beats, server.code = [], [], 200
        server.hangs, server.go_on = threading.Event(), threading.Event()
        ThreadingHTTPServer.__init__(server, ("127.0.0.1", port), _Handler)
        server.thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        server.thread.start()
        wait_until(lambda: server.bodies, 30)
        wait_until(lambda: "told: loss" in log_of(session), 30)
    finally:
        verdict = session.close()
        if server is not None:
            server.end()
    assert "alarm loss" not in " ".join(verdict.notes)


def test_an_address_that_is_wrong_is_not_tried_again(
    hook: Hook, tmp_path: Path
) -> None:
    hook.code = 404
    session = Session("s", directory=tmp_path, alarms=[RigAlarm(webhook=hook.url)])
    session.alarm("loss", "camera", "x")
    wait_until(lambda: "NOT TOLD: loss" in log_of(session), 30)
    assert "404 Not Found: check its address" in log_of(session)
    assert "tried again" not in log_of(session)
    session.close()


def test_one_of_a_kind_is_told_and_the_rest_counted(hook: Hook, tmp_path: Path) -> None:
    alarm = RigAlarm(webhook=hook.url, again_s=2)
    with Session("s", directory=tmp_path, alarms=[alarm]) as session:
        for k in range(10):
            session.alarm("loss", "camera", f"loss {k}")
        session.alarm("stall", "probe", "another kind is not held back")
        wait_until(lambda: len(hook.bodies) >= 3, 30)
        first, other, later = hook.bodies
        assert (first["text"], first["held_back"]) == ("loss 0", 0)
        assert other["kind"] == "stall"
        assert later["text"].startswith("loss 9; since the last message: camera 9")
        assert later["held_back"] == 8  # but for the one that is told
        for _ in range(3):
            session.alarm("loss", "camera", "at the end")
    assert hook.bodies[-1]["text"].startswith("at the end")  # told before the end
    assert hook.bodies[-1]["held_back"] == 2


@pytest.mark.slow
def test_a_killed_alarm_process_is_replaced_and_tells(
    hook: Hook, tmp_path: Path
) -> None:
    hook.hangs.set()
    alarm = RigAlarm(webhook=hook.url)
    sleeping = RigAlarm(["stall"], command=["sleep", "1000"], timeout_s=900)
    with Session("s", directory=tmp_path, alarms=[alarm, sleeping]) as session:
        session.alarm("stall", "camera", "a command that runs")
        pid = alarm_pid(session)

        def children() -> list[str]:
            path = Path(f"/proc/{pid}/task")
            return " ".join(
                p.read_text() for p in path.glob("*/children")
            ).split()  # fmt: skip

        wait_until(children, 30)
        (command,) = children()
        session.alarm("loss", "camera", "on its way when it dies")
        os.kill(pid, signal.SIGKILL)
        hook.hangs.clear()
        hook.go_on.set()
        wait_until(lambda: alarm_pid(session) != pid, 30)
        wait_until(lambda: "loss" in hook.kinds, 30)
        wait_until(lambda: "sleep" not in _name(command), 30)
        # Its successor runs the command again; the session's end does not wait.
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert "the process of the alarms died, exit code -9" in log_of(session)


def _name(pid: str) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return ""
    return "" if state[2].split()[0] == "Z" else state[0]


# ---- the heartbeat

PROGRAM = """
import sys, time
from ataraxis import Session
from ataraxis.session import RigHeartbeat
session = Session("s", directory=sys.argv[1], context=sys.argv[2])
session.add_alarms([], RigHeartbeat(sys.argv[3], every_s=0.2))
print(session._alarms[0].program.process.pid, flush=True)
time.sleep(1000)
"""


@pytest.mark.slow
def test_the_heartbeat_stops_when_the_session_hangs_or_is_killed(
    hook: Hook, tmp_path: Path
) -> None:
    place = tmp_path / "context"
    place.mkdir()
    session = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), str(place), hook.url],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert session.stdout is not None
        pid = session.stdout.readline().strip()
        wait_until(lambda: len(hook.beats) > 3, 30)
        session.send_signal(signal.SIGSTOP)  # it hangs
        wait_until(lambda: time.monotonic() - hook.beats[-1] > 3, 60)
        session.send_signal(signal.SIGCONT)
        count = len(hook.beats)
        wait_until(lambda: len(hook.beats) > count, 30)
    finally:
        session.kill()
        session.wait()
        session.stdout.close()
    wait_until(lambda: not _name(pid), 30, "the end of the process of the alarms")
    count = len(hook.beats)
    time.sleep(1)
    assert len(hook.beats) <= count + 1


def test_a_heartbeat_that_fails_is_in_the_log(hook: Hook, tmp_path: Path) -> None:
    with Session("s", directory=tmp_path) as session:
        hook.code = 503
        session.add_alarms([], RigHeartbeat(hook.url, every_s=0.2))
        wait_until(lambda: "NOT TOLD: heartbeat http" in log_of(session), 30)
        hook.code = 200
        wait_until(lambda: ": it answers" in log_of(session), 30)
    assert SECRET not in log_of(session)


# ---- events


def test_a_recorder_and_a_source_that_die_are_told(hook: Hook, tmp_path: Path) -> None:
    rig = Rig(
        {"probe": RigSource("sim", "ramp", samples=50)},
        alarms=[RigAlarm(webhook=hook.url)],
    )
    session = Session("s", directory=tmp_path)
    try:
        run = session.start(rig)
        os.kill(session.recorders["recorder"], signal.SIGKILL)
        wait_until(lambda: "recorder_down" in hook.kinds, 30)
        os.kill(run.programs["probe"], signal.SIGKILL)
        wait_until(lambda: run.look() and "source_lost" in hook.kinds, 30)
        wait_until(lambda: run.look() and run._programs[0].restarts, 30)
    finally:
        session.close()
    lost = next(body for body in hook.bodies if body["kind"] == "source_lost")
    assert lost["stream"] == "probe"
    assert "exit code -9" in lost["text"]


def test_a_device_that_went_away_is_told(hook: Hook, tmp_path: Path) -> None:
    faults = {"lost_after_s": 0.3}
    rig = Rig(
        {"probe": RigSource("sim", "ramp", attrs={"faults": faults}, samples=50)},
        alarms=[RigAlarm(["source_lost"], webhook=hook.url)],
    )
    session = Session("s", directory=tmp_path)
    try:
        run = session.start(rig)
        wait_until(lambda: run.look() and hook.bodies, 30)
    finally:
        session.close()
    assert hook.bodies[0]["stream"] == "probe"
    assert "its device went away: " in hook.bodies[0]["text"]


@pytest.mark.slow
def test_losses_of_a_device_and_stalls_are_told(hook: Hook, tmp_path: Path) -> None:
    alarm = RigAlarm(webhook=hook.url)
    producer = Producer(
        "cam", shape=(4,), dtype="u1", buffer_count=4, on_stall=lambda found: None
    )
    row = np.zeros(4, "u1")
    session = Session("s", directory=tmp_path, alarms=[alarm])
    try:
        session.record("cam", timeout=10)
        producer.send(row, device_sequence=0)
        wait_until(lambda: "cam" in session._alarms[0]._watches, 30)
        producer.send(row, device_sequence=8)
        wait_until(lambda: "device_loss" in hook.kinds, 30)
        with Consumer("cam", policy="lossless", label="slow viewer"):
            _fill(producer, row)
        wait_until(lambda: "stall" in hook.kinds, 30)
    finally:
        session.close()
    producer.unlink()
    told = dict(zip(hook.kinds, hook.bodies, strict=True))
    assert "lost 7" in told["device_loss"]["text"]
    assert "waited for slow viewer for" in told["stall"]["text"]


def _fill(producer: Producer, row: np.ndarray[Any, Any]) -> None:
    """Send until a reader has made it wait for 6 s."""
    for number in range(9, 20):
        try:
            producer.send(row, device_sequence=number, timeout=6)
        except TimeoutError:
            return
    raise AssertionError("the producer never waited")


def test_losses_and_a_full_disk_are_told(hook: Hook, tmp_path: Path) -> None:
    s = Session("s", directory=tmp_path, alarms=[RigAlarm(webhook=hook.url)])
    try:
        s._lose(SessionLoss("cam", 7, 3, "the ring was full", 0))
        s.record("cam", process=True)
        s._recorders[0]._handle({"alarm": ["low_disk", "cam", "1 MiB are left"]})
        wait_until(lambda: len(hook.bodies) == 2, 30)
        s._stream_recorders["events"]._warn("no space")  # type: ignore[union-attr]
        wait_until(lambda: "recorder_down" in hook.kinds, 30)
    finally:
        s.close()
    told = {body["kind"]: body["text"] for body in hook.bodies}
    assert told["loss"] == "3 frames from 7 on are missing: the ring was full"
    assert told["low_disk"] == "1 MiB are left"
    assert told["recorder_down"] == "it cannot be written: no space"


# ---- check


def test_check_tries_each_alarm_once(hook: Hook, tmp_path: Path) -> None:
    rig = Rig(
        {"probe": RigSource("sim", "ramp", samples=50)},
        alarms=[
            RigAlarm(["loss"], webhook=hook.url),
            RigAlarm(webhook=f"http://127.0.0.1:{free_port()}/{SECRET}"),
            RigAlarm(webhook="$NO_SUCH_HOOK"),
        ],
        heartbeat=RigHeartbeat(hook.url),
    )
    path = tmp_path / "rig.yaml"
    rig.to_yaml(path)
    done = CliRunner().invoke(
        main, ["check", str(path), "--soak", "1", "-o", str(tmp_path)]
    )
    assert done.exit_code == 1
    assert "NOT READY" in done.output
    assert SECRET not in done.output
    (body,) = hook.bodies
    assert body["kind"] == "test"
    assert "this is a test" in body["text"]
    assert len(hook.beats) == 1
    text = " ".join(done.output.split())
    assert "it refused the connection: is its server running" in text
    assert "NO_SUCH_HOOK is not set" in text
    assert "alarms[0] (webhook http://127.0.0.1" in text
    assert "a test was sent" in text
