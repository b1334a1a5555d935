"""Alarms of a rig: what is told, where to, and the text of a message."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

AlarmKind = Literal[
    "loss", "device_loss", "stall", "low_disk", "source_lost", "recorder_down"
]
KINDS: tuple[AlarmKind, ...] = get_args(AlarmKind)
TEST = "test"
"""Kind of the message that `ataraxis check` sends."""
TEXT_SIZE = 400
"""Longest text of a message, characters: it is written into a pipe at once."""


@dataclass
class RigMail:
    """A mail server, and who gets the mail; its password is never in the rig."""

    host: str
    to: list[str]
    sender: str = field(default="", metadata={"help": "by default the first of 'to'"})
    port: int = 587
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = field(default="", metadata={"help": "empty: without a login"})
    password_file: str = field(
        default="", metadata={"help": "absolute path; only you may read it"}
    )
    password_env: str = field(
        default="", metadata={"help": "environment variable of the session"}
    )

    def __post_init__(self) -> None:
        if not self.host or not self.to or not all("@" in name for name in self.to):
            raise ValueError("give the server's host and at least one address in to")
        if self.password_file and self.password_env:
            raise ValueError("give password_file or password_env, one of them")
        if bool(self.user) != bool(self.password_file or self.password_env):
            raise ValueError("user needs password_file or password_env, and they user")
        if self.user and self.tls == "none":
            raise ValueError("a password needs TLS: give tls: starttls, or tls: tls")
        if self.password_file and self.password_file[0] not in "/~":
            raise ValueError(
                f"password_file must be an absolute path, got {self.password_file!r}"
            )


@dataclass
class RigAlarm:
    """One way to tell a person; exactly one of command, webhook and mail.

    Examples
    --------
    >>> alarm = RigAlarm(["loss", "low_disk"], webhook="https://example.org/hook")
    >>> alarm.label
    'webhook https://example.org'
    """

    on: list[AlarmKind] = field(
        default_factory=lambda: [*KINDS], metadata={"help": "by default all"}
    )
    command: list[str] = field(
        default_factory=list, metadata={"help": "your program; it gets JSON as input"}
    )
    webhook: str = field(
        default="", metadata={"help": "a URL, or $NAME of an environment variable"}
    )
    mail: RigMail | None = None
    again_s: float = field(
        default=300.0, metadata={"units": "s", "help": "one of a kind in this time"}
    )
    timeout_s: float = field(
        default=10.0, metadata={"units": "s", "help": "longest time of an attempt"}
    )

    def __post_init__(self) -> None:
        ways = [n for n in ("command", "webhook", "mail") if getattr(self, n)]
        if len(ways) != 1:
            found = " and ".join(ways) or "none"
            raise ValueError(f"give one of command, webhook and mail, got {found}")
        if not self.on:
            raise ValueError(f"on: it is empty; it may have {', '.join(KINDS)}")
        if self.webhook:
            check_url("webhook", self.webhook)
        _check_time("again_s", self.again_s, 0.0)
        _check_time("timeout_s", self.timeout_s, 0.1)

    @property
    def label(self) -> str:
        """What it is, without anything that may be secret."""
        if self.mail is not None:
            return f"mail to {', '.join(self.mail.to)} by {self.mail.host}"
        if self.webhook:
            return f"webhook {place_of(self.webhook)}"
        return f"command {self.command[0]}"


@dataclass
class RigHeartbeat:
    """A URL that is asked while the session lives; a service there notices silence."""

    url: str = field(metadata={"help": "or $NAME of an environment variable"})
    every_s: float = field(default=60.0, metadata={"units": "s"})
    timeout_s: float = field(
        default=10.0, metadata={"units": "s", "help": "longest time of an attempt"}
    )

    def __post_init__(self) -> None:
        check_url("url", self.url)
        _check_time("every_s", self.every_s, 0.1)
        _check_time("timeout_s", self.timeout_s, 0.1)

    @property
    def label(self) -> str:
        """What it is, without anything that may be secret."""
        return f"heartbeat {place_of(self.url)}"


def check_url(name: str, url: str) -> None:
    """Raise `ValueError` unless it is a URL of HTTP, or ``$NAME``."""
    if url.startswith("$") and url[1:].isidentifier():
        return
    try:
        parts = urlsplit(url)
        is_fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        parts.port  # noqa: B018  (raises if it is not a number)
    except ValueError:
        is_fine = False
    if not is_fine:
        raise ValueError(
            f"{name} must be https://..., http://... or $NAME of an environment "
            f"variable that has it, got {place_of(url)!r}"
        )
    if parts.username or parts.password:
        raise ValueError(f"{name}: a URL must not have a password: give $NAME instead")


def place_of(url: str) -> str:
    """Return where a URL leads, without its path: that may be a secret.

    Examples
    --------
    >>> place_of("https://example.org:8443/secret?key=1"), place_of("$LAB_HOOK")
    ('https://example.org:8443', '$LAB_HOOK')
    """
    if url.startswith("$"):
        return url
    scheme, colon, rest = url.partition("://")
    if not colon:
        return url[:20]
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0].rpartition('@')[2]}"


def _check_time(name: str, value: float, least: float) -> None:
    if not least <= value < math.inf:
        raise ValueError(f"{name} must be at least {least:g} s, got {value!r}")


def text_of(message: dict[str, Any]) -> str:
    """Return a message as a line for people.

    Examples
    --------
    >>> text_of({"kind": "stall", "stream": "cam", "text": "waits", "held_back": 2})
    "stall of 'cam': waits (2 more of this kind were held back)"
    """
    about = f"{message['kind']} of {message['stream']!r}" if message["stream"] else (
        message["kind"]
    )  # fmt: skip
    more = message["held_back"]
    were = "was" if more == 1 else "were"
    held = f" ({more} more of this kind {were} held back)" if more else ""
    return f"{about}: {message['text']}{held}"
