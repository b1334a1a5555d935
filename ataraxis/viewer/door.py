"""Door: which requests are answered, and with what; files, headers, token, names.

``Host`` and ``Origin`` are compared with a fixed list, never with each other: a page
whose name resolves to this machine (DNS rebinding) has both of them right.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs

from ataraxis.errors import AccessDenied

VARIABLE = "ATARAXIS_VIEW_TOKEN"
"""Environment variable of the token."""
SOCKET = "/socket"
STATIC = Path(__file__).with_name("static")
"""Directory of the page's files."""
_BYTES, _LEAST = 24, 22
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: "
    "data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def token_of(file: str | os.PathLike[str] | None = None) -> str:
    """Return the token in a file, or in the environment, or a new one.

    It is never on a command line, which every user of the machine can read.

    Raises
    ------
    AccessDenied
        The token is shorter than 128 bits, or other users can read the file.
    """
    if file is not None:
        path = Path(file)
        if path.stat().st_mode & 0o077:
            raise AccessDenied(
                f"other users can read or change {path}: chmod 600 {path}"
            )
        found, where = path.read_text(encoding="utf-8").strip(), str(path)
    else:
        found, where = os.environ.get(VARIABLE, ""), f"${VARIABLE}"
        if not found:
            return secrets.token_urlsafe(_BYTES)
    if len(found) < _LEAST or not found.isprintable() or not found.isascii():
        raise AccessDenied(
            f"the token in {where} has {len(found)} characters: at least {_LEAST} of "
            'ASCII are needed, as python -c "import secrets; '
            'print(secrets.token_urlsafe())" prints'
        )
    return found


class DoorAnswer(NamedTuple):
    """The answer to a request."""

    status: HTTPStatus
    headers: dict[str, str]
    body: bytes


class Door:
    """Answers requests for files, and decides who may open the socket.

    Parameters
    ----------
    port : int
        Port of the server.
    token : str
        What a page must show to open the socket.
    names : iterable of str
        Further names of this machine that ``Host`` may have, with or without a port.
    root : str
        Path in front of every request that a proxy leaves there.

    Examples
    --------
    >>> door = Door(8787, "a" * 32)
    >>> door.answer("GET", "/", {"Host": "evil.example:8787"}).status.value
    403
    >>> door.answer("GET", "/", {"Host": "127.0.0.1:8787"}).status.value
    200
    """

    def __init__(
        self, port: int, token: str, names: Iterable[str] = (), root: str = ""
    ) -> None:
        self._token, self._root = token, root.rstrip("/")
        own = [f"{name}:{port}" for name in ("127.0.0.1", "localhost")]
        self._hosts = {name.lower() for name in (*own, *names)}
        self._origins = {f"http://{host}" for host in self._hosts}
        self._origins |= {f"https://{name.lower()}" for name in names}
        self._files = {
            f"/{file.name}": file.read_bytes()
            for file in STATIC.iterdir()
            if file.suffix in _TYPES
        }

    def answer(
        self, method: str, target: str, headers: Mapping[str, str]
    ) -> DoorAnswer:
        """Return the answer to a request for a file; 101: the socket may be opened."""
        path, _, query = target.partition("?")
        path = path.removeprefix(self._root) or "/"
        host, origin = headers.get("Host", ""), headers.get("Origin")
        if host.lower() not in self._hosts:
            return _refuse(HTTPStatus.FORBIDDEN, "this Host is not on the list")
        if origin is not None and origin.lower() not in self._origins:
            return _refuse(HTTPStatus.FORBIDDEN, "this Origin is not on the list")
        if method not in ("GET", "HEAD"):
            refusal = _refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD")
            return refusal._replace(headers={**refusal.headers, "Allow": "GET, HEAD"})
        if path == SOCKET:
            shown = parse_qs(query).get("token", [""])[0]
            if origin is None:
                return _refuse(HTTPStatus.FORBIDDEN, "the socket needs an Origin")
            if not hmac.compare_digest(shown.encode(), self._token.encode()):
                return _refuse(HTTPStatus.FORBIDDEN, "a token is needed: open the link")
            return DoorAnswer(HTTPStatus.SWITCHING_PROTOCOLS, {}, b"")
        name = "/index.html" if path == "/" else path
        body = self._files.get(name)
        if body is None:
            return _refuse(HTTPStatus.NOT_FOUND, "not found")
        kind = _TYPES[Path(name).suffix]
        about = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}
        return DoorAnswer(HTTPStatus.OK, about, b"" if method == "HEAD" else body)


def _refuse(status: HTTPStatus, reason: str) -> DoorAnswer:
    body = f"{status.value} {status.phrase}: {reason}\n".encode()
    about = {**HEADERS, "Content-Type": "text/plain; charset=utf-8"}
    return DoorAnswer(status, {**about, "Content-Length": str(len(body))}, body)
