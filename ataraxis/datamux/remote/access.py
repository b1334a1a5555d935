"""Access control of a server: tokens, TLS, Origin, Host, and users.

A server on loopback has a token too, as every user of the machine can reach it. The
token is in a file of the user's context, where `RemoteAPI` finds it. A server on a Unix
socket gets the peer's user from the kernel, and needs no token.
"""

from __future__ import annotations

import fcntl
import hmac
import ipaddress
import os
import secrets
import socket
import ssl
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ataraxis.datamux.remote.gate import UNIX
from ataraxis.errors import AccessDenied
from ataraxis.shm.context import Context

_LEAST = 22  # characters of base64 that hold 128 bits
_BEARER = "Bearer "


@dataclass(frozen=True)
class Identity:
    """The credentials of a client, and how it verifies the server."""

    token: str | None = None
    """The server's token."""
    tls: ssl.SSLContext | None = None
    """TLS; None: unencrypted."""
    own_port: int = 0
    """Port of a server of this user with a token in the context; 0: none."""

    def shown_token(self) -> str | None:
        """Return the token; of a server of this user, the current one."""
        if self.token is None and self.own_port:
            return token_of_context(self.own_port)
        return self.token


class Access:
    """The requirements of a server.

    Parameters
    ----------
    host : str
        Address on which it listens.
    token : str, optional
        Token that clients must show; at least 128 bits.
    certificate, key : str or Path, optional
        Files of the server for TLS, PEM.
    origins : iterable of str
        Web pages that may connect, as ``https://lab.example``; by default none.
    names : iterable of str
        Further host names of the server, besides its own and addresses.

    Raises
    ------
    AccessDenied
        It would serve other machines without TLS and a token; or the token is short.
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
        self._file: TokenFile | None = None
        self.is_own = False
        """Whether the token was generated for clients of this user."""
        self.is_unix = host.startswith(UNIX)
        self.tls: ssl.SSLContext | None = None
        if certificate is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
            for path in (certificate, key):
                if path is not None:
                    _check_readable(path)
            try:
                self.tls.load_cert_chain(certificate, key)
            except ssl.SSLError as error:
                raise AccessDenied(
                    f"{certificate} and its key {key or certificate}: not a "
                    f"certificate in PEM and its key: {error}"
                ) from error
        if self.is_unix:
            self._token = None  # the kernel names the user
        elif not is_loopback(host) and (self.tls is None or token is None):
            lacks = [
                *(["TLS (--certificate and --key)"] if self.tls is None else []),
                *(["a token (--token-file)"] if token is None else []),
            ]
            raise AccessDenied(
                f"serving on {host!r} would accept other machines without "
                f"{' and '.join(lacks)}: give both, or serve on 127.0.0.1"
            )
        self._origins = frozenset(origins)
        self._names = {name.lower() for name in names} | _own_names(host)

    def publish(self, port: int) -> None:
        """Store the token in this user's context, before clients can connect."""
        if self.is_own and self._token is not None:
            self._file = TokenFile(port, self._token)

    def withdraw(self) -> None:
        """Remove the token from the context; a second call does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.remove()

    def refusal(self, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return HTTP status and reason of a refusal; None if the request is accepted.

        Names of `headers` are lower-case.
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
            return 401, (
                "a token is needed: connect(..., token=...); on the server's machine "
                "the same user with the same $ATARAXIS_CONTEXT has it"
            )
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
    if host.startswith(UNIX) or is_loopback(host):
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
    """Whether a host is the loopback of this machine."""
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
    host: str,
    token: str | None,
    tls: bool | str | Path | ssl.SSLContext | None,
    port: int = 0,
) -> Identity:
    """Return the identity of a client for a host; `token` and `tls` as of `connect`.

    ``$ATARAXIS_TOKEN`` may also be ``host:port=token``; ``tls=False`` is for none.
    Raises `AccessDenied` if the token would be sent unencrypted, or is not for this
    host.
    """
    if host.startswith(UNIX):
        return Identity(None, None)
    is_near = is_loopback(host)
    if token is None:
        token = _environments_token(host, port, is_near)
    own_port = port if token is None and is_near else 0
    context: ssl.SSLContext | None = None
    if isinstance(tls, ssl.SSLContext):
        context = tls
    elif isinstance(tls, (str, Path)):
        _check_readable(tls)
        try:
            context = ssl.create_default_context(cafile=tls)
        except ssl.SSLError as error:
            raise AccessDenied(f"{tls}: not a certificate in PEM: {error}") from error
    elif tls or (tls is None and not is_near):
        context = ssl.create_default_context()
    if token is not None and context is None and not is_near:
        raise AccessDenied(
            f"the token would be sent to {host!r} unencrypted: use tls=True, or "
            "tls='certificate.pem' of a server with its own"
        )
    return Identity(token, context, own_port)


def _environments_token(host: str, port: int, is_near: bool) -> str | None:
    """Return the token of the environment if it is for this host."""
    value = os.environ.get("ATARAXIS_TOKEN") or ""
    place, sign, token = value.partition("=")
    if not sign or len(token) < _LEAST:
        if value and not is_near:
            raise AccessDenied(
                f"$ATARAXIS_TOKEN without a host is sent to this machine only: set it "
                f"to '{host}=TOKEN', or give token="
            )
        return value or None
    return token if place.lower() in (host.lower(), f"{host}:{port}".lower()) else None


def _check_readable(path: str | Path) -> None:
    """Raise the error of `open`, which has the file's name, as that of ssl has not."""
    with open(path, "rb"):
        pass


def checked_token(token: str) -> str:
    """Return the token; `AccessDenied` if it is too short."""
    if len(token) < _LEAST or not token.isascii() or not token.isprintable():
        raise AccessDenied(
            f"the token must have at least {_LEAST} printable characters, got "
            f"{len(token)}: use secrets.token_urlsafe()"
        )
    return token


def token_from(path: str | Path, *, is_made: bool = False) -> str:
    """Return the token in a file of mode 0600; if `is_made`, make a missing file.

    Raises `AccessDenied` if other users can read it, or the token is too short, and
    `OSError` if the file cannot be read.
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
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o077:
            raise AccessDenied(
                f"{path} has mode {mode:04o}, others can read the token: chmod 600 it"
            )
        if status.st_uid not in (os.geteuid(), 0):
            raise AccessDenied(
                f"{path} belongs to user {status.st_uid}: use a file of this user"
            )
        try:
            return checked_token(file.read(_LONGEST).decode("ascii").strip())
        except UnicodeDecodeError as error:
            raise AccessDenied(
                f"{path} does not contain a token: {error}; remove it to make one"
            ) from error
        except AccessDenied as error:
            raise AccessDenied(f"{path}: {error}") from error


# ---- the token of a server of this machine, in a file of the user's context


class TokenFile:
    """The token of a server on loopback, in a file of the context until it closes."""

    def __init__(self, port: int, token: str) -> None:
        self._name = _token_name(port)
        self._context = Context.of(None)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        draft = f"{self._name}.{secrets.token_hex(8)}"
        with self._context.opened() as directory:
            self._descriptor = os.open(draft, flags, 0o600, dir_fd=directory)
            try:
                # The lock shows that the server runs.
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(self._descriptor, token.encode() + b"\n")
                os.rename(draft, self._name, src_dir_fd=directory, dst_dir_fd=directory)
                _sweep(directory)
            except BaseException:
                os.close(self._descriptor)
                os.unlink(draft, dir_fd=directory)
                raise

    def remove(self) -> None:
        """Remove the file, unless another server has replaced it."""
        mine = os.fstat(self._descriptor)
        try:
            with self._context.opened() as directory:
                there = os.stat(self._name, dir_fd=directory, follow_symlinks=False)
                if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                    os.unlink(self._name, dir_fd=directory)
        except OSError:
            pass  # the context is gone, or belongs to another user
        os.close(self._descriptor)


_PREFIX, _SUFFIX = ".serve-", ".token"
_LONGEST = 4096


def _token_name(port: int) -> str:
    return f"{_PREFIX}{port}{_SUFFIX}"


def _sweep(directory: int) -> None:
    """Remove the files of servers that were killed."""
    for name in os.listdir(directory):
        if not name.startswith(_PREFIX) or _SUFFIX not in name:
            continue
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=directory)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
        except OSError:
            pass  # its server runs
        finally:
            os.close(descriptor)


def token_of_context(port: int) -> str | None:
    """Return the token of this user's server on a port; None without one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with Context.of(None).opened() as directory:
            descriptor = os.open(_token_name(port), flags, dir_fd=directory)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_mine = status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode)
        if not is_mine or status.st_mode & 0o077:
            return None
        return file.read(_LONGEST).decode("ascii", "replace").strip() or None


# ---- a Unix socket, whose peer's user the kernel names

_SOCKET = ".serve.sock"
_UNIX_BYTES = 107


def unix_path(host: str) -> str:
    """Return the path of ``unix:path``; of ``unix:`` the one in this user's context.

    Raises `ValueError` if the path is too long for a socket.
    """
    path = host.removeprefix(UNIX) or Context.of(None).join(_SOCKET)
    if len(os.fsencode(path)) > _UNIX_BYTES:
        raise ValueError(
            f"{path} is too long: a Unix socket has at most {_UNIX_BYTES} bytes"
        )
    return path


def is_same_user(transport: Any) -> bool:
    """Whether the peer of a Unix socket is this user, or root."""
    made = transport.get_extra_info("socket")
    size = struct.calcsize("iII")
    try:
        credentials = made.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    except (OSError, AttributeError):
        return False
    user: int = struct.unpack("iII", credentials)[1]
    return user in (os.geteuid(), 0)
