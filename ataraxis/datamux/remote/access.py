"""Who may come in, and how the door is kept: tokens, TLS, Origin and Host."""

from __future__ import annotations

import hmac
import ipaddress
import os
import secrets
import socket
import ssl
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ataraxis.errors import AccessDenied

_LEAST = 22  # characters of base64 that hold 128 bits
_BEARER = "Bearer "


@dataclass(frozen=True)
class Identity:
    """What a client shows: its token, and how it makes sure of the server."""

    token: str | None = None
    """The server's token."""
    tls: ssl.SSLContext | None = None
    """TLS; None is none."""


class Access:
    """What a server demands.

    Parameters
    ----------
    host : str
        Where it listens.
    token : str, optional
        What clients must show; at least 128 bits.
    certificate, key : str or Path, optional
        Files of the server, PEM, for TLS.
    origins : iterable of str
        Web pages that may connect, as ``https://lab.example``; none by default.
    names : iterable of str
        Names by which clients may call the server, besides its own and addresses.

    Raises
    ------
    AccessDenied
        It would listen beyond this machine without TLS and a token; the token is short.
    OSError
        A file cannot be read.

    Examples
    --------
    >>> Access("127.0.0.1").refusal({"host": "evil.example:80"})
    (421, "Host 'evil.example' is not this server's name: see --name")
    """

    def __init__(
        self,
        host: str,
        token: str | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        origins: Iterable[str] = (),
        names: Iterable[str] = (),
    ) -> None:
        self._token = None if token is None else checked_token(token)
        self.tls: ssl.SSLContext | None = None
        if certificate is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
            self.tls.load_cert_chain(certificate, key)
        if not is_loopback(host) and (self.tls is None or token is None):
            lacks = [
                *(["TLS (--certificate and --key)"] if self.tls is None else []),
                *(["a token (--token-file)"] if token is None else []),
            ]
            raise AccessDenied(
                f"serving on {host!r} would open the door beyond this machine without "
                f"{' and '.join(lacks)}: give both, or serve on 127.0.0.1"
            )
        self._origins = frozenset(origins)
        self._names = {name.lower() for name in names} | _own_names(host)

    def refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        """Tell why a request is refused: HTTP status and words; None if it is not.

        Parameters
        ----------
        headers : dict
            Those of the request, by lower-case names.
        """
        host = _host_of(headers.get("host", ""))
        if host not in self._names and not _is_address(host):
            return 421, f"Host {host[:80]!r} is not this server's name: see --name"
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins:
            return 403, f"Origin {origin[:80]!r} may not connect: see --origin"
        if self._token is None:
            return None
        shown = headers.get("authorization", "")
        if not shown.startswith(_BEARER):
            return 401, "a token is needed: connect(..., token=...)"
        is_it = hmac.compare_digest(
            shown[len(_BEARER) :].encode(), self._token.encode()
        )
        return None if is_it else (401, "the token is not this server's")


def _host_of(header: str) -> str:
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _own_names(host: str) -> set[str]:
    if is_loopback(host):
        return {"localhost"}
    found = {"localhost", host.lower(), socket.gethostname().lower()}
    return found | {socket.getfqdn().lower()}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine to itself, and nothing else.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("")
    (True, False, False)
    """
    if not host:
        return False
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    try:
        found = socket.getaddrinfo(host, None)
    except OSError:
        return False
    return all(ipaddress.ip_address(info[4][0]).is_loopback for info in found)


def identity_of(
    host: str, token: str | None, tls: bool | str | Path | ssl.SSLContext | None
) -> Identity:
    """Return what a client shows to a host.

    Parameters
    ----------
    host : str
        Where the server is.
    token : str, optional
        Its token; ``$ATARAXIS_TOKEN`` if not given.
    tls : bool, str, Path or SSLContext, optional
        A file of the server's certificate or its authority, PEM; True for the
        authorities that this machine trusts; False for none. By default True beyond
        this machine, else False.

    Raises
    ------
    AccessDenied
        The token would be seen on its way.
    """
    is_near = is_loopback(host)
    token = os.environ.get("ATARAXIS_TOKEN") or None if token is None else token
    context: ssl.SSLContext | None = None
    if isinstance(tls, ssl.SSLContext):
        context = tls
    elif isinstance(tls, (str, Path)):
        context = ssl.create_default_context(cafile=tls)
    elif tls or (tls is None and not is_near):
        context = ssl.create_default_context()
    if token is not None and context is None and not is_near:
        raise AccessDenied(
            f"the token would go to {host!r} for all to read: use tls=True, or "
            "tls='certificate.pem' of a server with its own"
        )
    return Identity(token, context)


def checked_token(token: str) -> str:
    """Return the token, or raise because it is too short to be one."""
    if len(token) < _LEAST or not token.isascii() or not token.isprintable():
        raise AccessDenied(
            f"a token of {len(token)} characters: at least {_LEAST}, such as "
            "secrets.token_urlsafe() gives"
        )
    return token


def token_from(path: str | Path, *, is_made: bool = False) -> str:
    """Return the token in a file that nobody else can read.

    Parameters
    ----------
    path : str or Path
        The file, mode 0600.
    is_made : bool
        Make it, with a new token, if it is not there.

    Raises
    ------
    AccessDenied
        Others can read it, or what is in it is too short.
    OSError
        It cannot be read.
    """
    path = Path(path)
    if is_made:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
    with path.open() as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise AccessDenied(
                f"{path} has mode {mode:04o}, others can read the token: chmod 600 it"
            )
        return checked_token(file.read().strip())
