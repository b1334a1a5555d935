"""The process that delivers alarms and the heartbeat of a session.

It reads settings and messages from its standard input, a line each, and prints what
became of them. Without an order to end, the end of its input, or of the process that
started it, ends it at once, with the commands that it runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from ataraxis.session.alarms import RigAlarm, RigHeartbeat, RigMail, check_url, text_of
from ataraxis.shm.process import ProcessOutput, ProcessWatch
from ataraxis.shm.thread import Latch, Thread

WAITING = 50
"""How many messages may wait for one way."""
STALE_S = 10.0
"""After so long without a beat the session hangs, and the heartbeat stops, s."""
HEARTBEAT = -1
"""Number of the heartbeat among the ways, for a test."""
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_AGAIN_S = 5.0
_STUCK = 8
_LOOK_MS = 200
_NOT_NOW = (408, 425, 429)
_LOGIN = (401, 403)
_REFUSED = 400
_BROKEN = 500


class AlarmRefused(Exception):
    """An attempt failed in a way that another one cannot mend."""


# ---- one attempt; `secrets` gets what must not be in a log


def deliver(
    alarm: RigAlarm, message: dict[str, Any], secrets: Callable[[str], object]
) -> None:
    """Tell a message in the way of an alarm, once; raise if that fails."""
    if alarm.mail is not None:
        _send_mail(alarm.mail, alarm.timeout_s, message, secrets)
    elif alarm.webhook:
        keys = ("session", "host", "kind", "stream", "text", "time", "held_back")
        body = json.dumps({key: message[key] for key in keys}).encode()
        _request(alarm.webhook, alarm.timeout_s, secrets, body)
    else:
        _run_command(alarm, message)


def _request(
    url: str, timeout: float, secrets: Callable[[str], object], body: bytes | None
) -> None:
    """POST JSON to a URL, or GET it without a body."""
    if url.startswith("$"):
        name, url = url[1:], os.environ.get(url[1:], "")
        if not url:
            raise AlarmRefused(
                f"the environment variable {name} is not set: set it where the session "
                "is started"
            )
        secrets(url)
        try:
            check_url(f"${name}", url)
        except ValueError as error:
            raise AlarmRefused(str(error)) from None
    secrets(url)
    headers = {"User-Agent": "ataraxis"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout):
            pass
    except urllib.error.HTTPError as error:
        error.close()
        text = f"it answered {error.code} {error.reason}"
        if error.code in _LOGIN:
            raise AlarmRefused(f"{text}: check the token in its address") from None
        if _REFUSED <= error.code < _BROKEN and error.code not in _NOT_NOW:
            raise AlarmRefused(f"{text}: check its address") from None
        raise OSError(f"{text}: its server is at fault, try later") from None


def _send_mail(
    mail: RigMail,
    timeout: float,
    message: dict[str, Any],
    secrets: Callable[[str], object],
) -> None:
    letter = EmailMessage()
    line = " ".join(text_of(message).split())
    letter["Subject"] = f"[ataraxis] {message['session']} on {message['host']}: {line}"
    letter["From"] = mail.sender or mail.to[0]
    letter["To"] = ", ".join(mail.to)
    keys = ("session", "host", "kind", "stream", "text", "time", "held_back")
    letter.set_content("".join(f"{key}: {message[key]}\n" for key in keys))
    password = _password(mail)
    secrets(password)
    context, host = ssl.create_default_context(), socket.gethostname()
    server: smtplib.SMTP
    if mail.tls == "tls":
        server = smtplib.SMTP_SSL(
            mail.host, mail.port, host, timeout=timeout, context=context
        )
    else:
        server = smtplib.SMTP(mail.host, mail.port, host, timeout=timeout)
    with server:
        if mail.tls == "starttls":
            server.starttls(context=context)
        if mail.user:
            server.login(mail.user, password)
        server.send_message(letter)


def _password(mail: RigMail) -> str:
    if mail.password_env:
        if found := os.environ.get(mail.password_env):
            return found
        raise AlarmRefused(
            f"the environment variable {mail.password_env} is not set: set it where "
            "the session is started"
        )
    if not mail.password_file:
        return ""
    path = Path(mail.password_file).expanduser()
    try:
        if path.stat().st_mode & 0o077:
            raise AlarmRefused(f"other users may read {path}: chmod 600 {path}")
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AlarmRefused(f"its password cannot be read: {error}") from None


def _run_command(alarm: RigAlarm, message: dict[str, Any]) -> None:
    """Run a program; it is killed after the timeout, and with this process."""
    facts = {f"ATARAXIS_ALARM_{key.upper()}": str(message[key]) for key in message}
    errors = ProcessOutput()
    try:
        done = subprocess.run(  # in the group of this process: killed with it
            alarm.command, input=json.dumps(message).encode() + b"\n",
            stdout=subprocess.DEVNULL, stderr=errors.fileno(), timeout=alarm.timeout_s,
            env={**os.environ, **facts}, check=False,
        )  # fmt: skip
        last = "".join(errors.last_lines())
    except (FileNotFoundError, PermissionError) as error:
        raise AlarmRefused(f"{error}: give the path of a program") from None
    finally:
        errors.close()
    if done.returncode:
        raise OSError(f"exit code {done.returncode}: {last or 'it printed nothing'}")


# ---- what went wrong, and what to do

# Another attempt would fail alike, and may lock the account.
_FINAL = (
    AlarmRefused,
    ssl.SSLCertVerificationError,
    smtplib.SMTPAuthenticationError,
    smtplib.SMTPNotSupportedError,
)


def _cause(error: BaseException) -> Any:
    return error.reason if isinstance(error, urllib.error.URLError) else error


def why(error: BaseException, timeout: float) -> str:
    """Return why an attempt failed, and what to do."""
    cause = _cause(error)
    late = f"no answer within {timeout:g} s: check its server, or raise timeout_s"
    known: list[tuple[type[BaseException], str]] = [
        (ssl.SSLCertVerificationError, "its certificate is not trusted: {}: renew it, "
         "or name its authority in SSL_CERT_FILE"),
        (ssl.SSLError, "{}: check tls, port and address"),
        (TimeoutError, late),
        (subprocess.TimeoutExpired, "it was killed, {}: make it "
         "shorter, or raise timeout_s"),
        (ConnectionRefusedError, "it refused the connection: is its server running, "
         "and the port right?"),
        (socket.gaierror, "its name is not known: check its address and the network"),
        (smtplib.SMTPAuthenticationError, "it refused user and password: check both"),
        (smtplib.SMTPNotSupportedError, "{}: check tls and port"),
        (smtplib.SMTPRecipientsRefused, "it refused every address in to"),
        (smtplib.SMTPException, "{}: check host, port and tls"),
    ]  # fmt: skip
    for kind, text in known:
        if isinstance(cause, kind):
            return text.format(str(cause).rstrip("."))
    return str(cause) or type(cause).__name__


class _Attempts:
    """Attempts in threads of their own: one that hangs is left behind.

    A timeout of a socket does not bound a lookup of a name, nor a server that answers
    one byte at a time.
    """

    def __init__(self) -> None:
        self._stuck: list[Thread] = []
        self._secrets: set[str] = set()

    def keep_secret(self, text: str) -> None:
        """Keep a text out of all messages."""
        for part in (text, text.partition("://")[2].partition("/")[2]):
            if part:
                self._secrets.add(part)

    def scrub(self, text: str) -> str:
        """Return a text without secrets, in a line."""
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join(text.split())[:400]

    def once(self, act: Callable[[], None], timeout: float) -> tuple[str, bool]:
        """Return why it failed, or ''; and whether another attempt may help."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        if len(self._stuck) >= _STUCK:
            return f"{_STUCK} earlier attempts still hang", True
        failed: list[BaseException] = []
        done = Latch()

        def attempt() -> None:
            try:
                act()
            except BaseException as error:
                failed.append(error)
            done.set()

        thread = Thread(attempt, "ataraxis-attempt")
        thread.start()
        # A command is killed at its timeout, and then says so itself.
        if not done.wait(timeout + 0.5):
            self._stuck.append(thread)
            failed = [TimeoutError()]
        if not failed:
            return "", False
        may_help = not isinstance(_cause(failed[0]), _FINAL)
        return self.scrub(why(failed[0], timeout)), may_help


class _AlarmWay:
    """One alarm of the rig: its messages, delivered one after the other."""

    def __init__(
        self, alarm: RigAlarm, tries: int, over: Latch, report: Callable[..., None]
    ) -> None:
        self._alarm, self._tries, self._over = alarm, tries, over
        self._report = report
        self._attempts = _Attempts()
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(WAITING)
        self._attempts.keep_secret(alarm.webhook)
        Thread(self._run, "ataraxis-alarm").start()

    def put(self, number: int, message: dict[str, Any]) -> None:
        """Add a message."""
        try:
            self._waiting.put_nowait({**message, "number": number})
        except queue.Full:
            self._report(failed=number, why=f"{WAITING} messages wait for it")

    def _run(self) -> None:
        while True:
            message = self._waiting.get()
            number, pause = message.pop("number"), _PAUSE_S
            for left in reversed(range(self._tries)):
                text, may_help = self._attempts.once(
                    lambda message=message: deliver(  # type: ignore[misc]
                        self._alarm, message, self._attempts.keep_secret
                    ),
                    self._alarm.timeout_s,
                )
                if not text or not may_help or not left:
                    break
                self._report(trouble=number, why=text)
                self._over.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            if text:
                self._report(failed=number, why=text)
            else:
                self._report(done=number)


class AlarmServer:
    """Delivers alarms and the heartbeat; runs in a process of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._lock = threading.Lock()
        self._over = Latch()
        self._beat = time.monotonic()
        self._ways = [
            _AlarmWay(_alarm(raw), settings["tries"], self._over, self._report)
            for raw in settings["alarms"]
        ]
        self._attempts = _Attempts()
        self._heartbeat: RigHeartbeat | None = None
        if settings["heartbeat"] is not None:
            self._heartbeat = RigHeartbeat(**settings["heartbeat"])
            self._attempts.keep_secret(self._heartbeat.url)
            if settings["is_beating"]:
                Thread(self._beat_on, "ataraxis-heartbeat").start()

    def _report(self, **message: Any) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def take(self, message: dict[str, Any]) -> None:
        """Handle one line of the session."""
        self._beat = time.monotonic()
        if "to" not in message:
            return
        number, to = message.pop("number"), message.pop("to")
        if to == HEARTBEAT:
            Thread(self._try_heartbeat, "ataraxis-test", (number,)).start()
        else:
            self._ways[to].put(number, message)

    def _ask(self) -> str:
        """Ask the URL of the heartbeat; return why that failed, or ''."""
        beat = self._heartbeat
        assert beat is not None
        secrets = self._attempts.keep_secret
        return self._attempts.once(
            lambda: _request(beat.url, beat.timeout_s, secrets, None), beat.timeout_s
        )[0]

    def _try_heartbeat(self, number: int) -> None:
        if text := self._ask():
            self._report(failed=number, why=text)
        else:
            self._report(done=number)

    def _beat_on(self) -> None:
        assert self._heartbeat is not None
        every, before = self._heartbeat.every_s, ""
        while not self._over.is_set():
            text = before
            if time.monotonic() - self._beat < STALE_S:
                text = self._ask()
                if bool(text) != bool(before):
                    self._report(heartbeat=text)
                before = text
            self._over.wait(min(every, _AGAIN_S) if text else every)

    def end(self) -> None:
        """Start no further heartbeat."""
        self._over.set()


def _alarm(raw: dict[str, Any]) -> RigAlarm:
    mail = raw.pop("mail")
    return RigAlarm(**raw, mail=None if mail is None else RigMail(**mail))


def _die() -> None:
    """End this process and the commands that it runs."""
    with contextlib.suppress(OSError):
        if os.getpgid(0) == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


def main() -> int:
    """Serve until the input has ``{"end": true}``, or ends."""
    parent = ProcessWatch.of_parent()
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    if parent.fileno() >= 0:
        poll.register(parent.fileno(), select.POLLIN)
    server: AlarmServer | None = None
    rest = b""
    while True:
        ready = dict(poll.poll(_LOOK_MS))
        if parent.is_gone():
            _die()
        if 0 not in ready:
            continue
        data = os.read(0, 65536)
        if not data:
            _die()
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if server is None:
                server = AlarmServer(message)
            elif "end" in message:
                server.end()
                return 0
            else:
                server.take(message)
