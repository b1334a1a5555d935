"""`Hosts`: the hosts of a lab, their addresses, certificates and rights (hosts.yaml).

The file is the only registry of hosts: nothing is discovered.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from ataraxis.config import YAML_EXCLUDE_METADATA, ConfigProblem, YamlConfig, document
from ataraxis.config.node import (
    Mapping,
    Scalar,
    Sequence,
    YamlNode,
    config_error,
    did_you_mean,
    flattened,
    resolved,
)
from ataraxis.errors import AccessDenied, HostUnavailable
from ataraxis.link.certificates import (
    Authority,
    CertificateFacts,
    certificate_name,
    check_private,
)

Right = Literal["read", "put", "run"]

FILE = "hosts.yaml"
PORT = 7411
"""Port of an agent whose address has none."""
VARIABLE = "ATARAXIS_HOSTS"
SPOOL_BYTES = 20_000_000_000
_AUTHORITY = "authority"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kMGT]?)(i?)B?")
_POWERS = {"": 0, "k": 1, "M": 2, "G": 3, "T": 4}


@dataclass
class LabHost:
    """A host of the lab.

    Parameters
    ----------
    address : str
        Where its agent listens, as ``192.0.2.10:7411``; 7411 if it has no port.
    tags : list of str
        What the host has, as ``gpu``; processors are placed by them.
    """

    address: str
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        split_address(self.address)


@dataclass
class SpoolFolder:
    """Where frames wait that another host has not received, and how many."""

    directory: str = "/var/tmp/ataraxis-spool"
    bytes: int | str | None = field(
        default=None, metadata={"help": "as 20 GB; default: 10 % of the free disk"}
    )

    def __post_init__(self) -> None:
        if self.bytes is not None:
            size_of(self.bytes)

    def limit(self) -> int:
        """Return the most bytes of the spool; default: 10 % free, at most 20 GB."""
        if self.bytes is not None:
            return size_of(self.bytes)
        place = Path(self.directory)
        while not place.exists() and place != place.parent:
            place = place.parent
        return min(SPOOL_BYTES, shutil.disk_usage(place).free // 10)


@dataclass
class StandingMirror:
    """A mirror that is there whenever both agents are."""

    stream: str
    host: str
    name: str | None = None
    policy: Literal["lossless", "lossy", "latest"] = "lossless"
    on_spool_full: Literal["wait", "lose"] = "wait"
    acknowledge: Literal["ring", "recorded"] = "ring"


@dataclass
class Hosts(YamlConfig):
    """The hosts of a lab, as one of them sees them.

    Parameters
    ----------
    lab : str
        Name of the lab; certificates of another lab are refused.
    me : str
        Name of this host.
    hosts : dict of str to LabHost
        Every host, this one too.
    carrier : {'zenoh', 'tls'}
        How hosts reach each other; the same on all.
    certificate, key, authority : str
        Files of this host, relative to the folder of the file.
    spool : SpoolFolder
        Where frames wait while a host cannot be reached.
    mirrors : list of StandingMirror
        Streams of other hosts that are always mirrored here.
    may : dict of str to list of {'read', 'put', 'run'}
        What other hosts may do here; by default read.
    modules : list of str
        Modules whose functions, programs and drivers ``run`` may name.
    functions : bool
        Whether ``run`` may also send pickled functions: any code.
    revoked : dict of str to str
        Serial number of each revoked certificate, and its host.
    sessions : str
        Directory where hosts with ``run`` may record streams of this host; '': nowhere.
    path : Path, optional
        The file; excluded from it.

    Examples
    --------
    >>> hosts = Hosts("rig", "gpu", {"gpu": LabHost("192.0.2.11"), "acq": LabHost("a")})
    >>> hosts.address_of("acq"), sorted(hosts.rights_of("acq")), hosts.rights_of("x")
    ('a:7411', ['read'], frozenset())
    """

    lab: str
    me: str
    hosts: dict[str, LabHost]
    carrier: Literal["zenoh", "tls"] = "zenoh"
    certificate: str = ""
    key: str = ""
    authority: str = ""
    spool: SpoolFolder = field(default_factory=SpoolFolder)
    mirrors: list[StandingMirror] = field(default_factory=list)
    may: dict[str, list[Right]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    functions: bool = False
    revoked: dict[str, str] = field(default_factory=dict)
    sessions: str = ""
    path: Path = field(
        default=Path(FILE), metadata=YAML_EXCLUDE_METADATA, compare=False
    )

    # ---- files

    @classmethod
    def from_yaml(cls, file_path: str | Path, *, strict: bool = True) -> Self:
        """Read the file, and check that its parts agree; as `YamlConfig.from_yaml`.

        Raises
        ------
        ConfigError
            The file does not fit; also names a host that it does not list.
        FileNotFoundError
            The file does not exist.
        """
        made = super().from_yaml(file_path, strict=strict)
        found = list(_contradictions(made))
        if found:
            root = _root_of(Path(file_path))
            problems = [
                ConfigProblem(
                    str(file_path),
                    _line_of(root, place),
                    _shown_place(place),
                    expected,
                    got,
                    hint,
                )
                for place, expected, got, hint in found
            ]
            raise config_error(f"{made.path.name} does not fit Hosts", problems)
        return made

    @classmethod
    def restore_excluded_fields(
        cls, data: dict[Any, Any], file_path: Path
    ) -> dict[Any, Any]:
        """Add the path of the file."""
        return {**data, "path": file_path.absolute()}

    @classmethod
    def load(cls, path: str | Path | None = None) -> Self:
        """Read hosts.yaml.

        Parameters
        ----------
        path : str or Path, optional
            The file, its folder, or the folder of ``hosts init`` (that of its first
            host); default: ``$ATARAXIS_HOSTS``, then ``~/.config/ataraxis/hosts.yaml``.

        Raises
        ------
        ConfigError
            The file does not fit; each problem has line, field and hint.
        FileNotFoundError
            The file does not exist.
        """
        default = Path.home() / ".config" / "ataraxis" / FILE
        place = Path(path or os.environ.get(VARIABLE) or default)
        if place.is_dir():
            place = next(iter(_files_of(place)), place / FILE)
        if not place.exists():
            raise FileNotFoundError(
                f"{place} does not exist: copy this host's folder of `ataraxis hosts "
                f"init` here, and name its file by --hosts or ${VARIABLE}"
            )
        return cls.from_yaml(place)

    @classmethod
    def create(
        cls,
        directory: str | Path,
        name: str,
        hosts: dict[str, str],
        *,
        carrier: Literal["zenoh", "tls"] = "zenoh",
    ) -> dict[str, Self]:
        """Make a lab: an authority, and a folder for each host to copy to it.

        Parameters
        ----------
        directory : str or Path
            Where; it keeps the authority, and needs to be on one machine only.
        name : str
            Name of the lab.
        hosts : dict of str to str
            Address by name of host.
        carrier : {'zenoh', 'tls'}, optional
            How hosts reach each other.

        Returns
        -------
        dict of str to Hosts
            What each host's file states, by its name.

        Raises
        ------
        FileExistsError
            The directory has a lab.
        ValueError
            A name or an address is not valid.
        ImportError
            cryptography is not installed.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = Hosts.create(folder, "rig", {"acq": "192.0.2.10", "gpu": "gpu1"})
        ...     made["gpu"].path.parent.name, made["gpu"].address_of("acq")
        ...     Hosts.load(made["acq"].path) == made["acq"]
        ('gpu', '192.0.2.10:7411')
        True
        """
        place = Path(directory).absolute()
        listed = {host: LabHost(_whole(address)) for host, address in hosts.items()}
        for each in (name, *hosts):
            check_host_name(each)
        if _AUTHORITY in hosts:
            raise ValueError(
                f"a host cannot have the name {_AUTHORITY!r}: a folder has"
            )
        if not hosts:
            raise ValueError("a lab has at least one host: give name=address")
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            authority = Authority.create(place / _AUTHORITY, name)
        except FileExistsError as error:
            raise FileExistsError(
                f"{place} has a lab: add a host by `ataraxis hosts add`, or choose "
                "another directory"
            ) from error
        made = {}
        for host in hosts:
            authority.issue(place / host, host, host)
            made[host] = cls._new(place, name, host, dict(listed), carrier)
        return made

    @classmethod
    def _new(
        cls,
        place: Path,
        lab: str,
        host: str,
        listed: dict[str, LabHost],
        carrier: Literal["zenoh", "tls"],
    ) -> Self:
        made = cls(
            lab,
            host,
            listed,
            carrier,
            f"{host}.pem",
            f"{host}.key",
            "authority.pem",
            path=place / host / FILE,
        )
        _save(made)
        return made

    def add(self, host: str, address: str) -> Self:
        """Add a host to every file of the lab, with a certificate of its own.

        A host that is there gets the new address, and a new certificate if its old one
        was revoked or ends within a year. Then copy the folders to the hosts again.

        Parameters
        ----------
        host : str
            Name of the host.
        address : str
            Where its agent will listen.

        Returns
        -------
        Hosts
            What the host's own file states.

        Raises
        ------
        AccessDenied
            The authority is not beside this file: it is where ``hosts init`` ran.
        ValueError
            The name or the address is not valid.
        """
        check_host_name(host)
        place, authority = self._authority()
        listed = LabHost(_whole(address), self.hosts.get(host, LabHost("x")).tags)
        self.hosts[host] = listed
        lab = self._lab_files(place)
        if host not in lab:
            lab[host] = self._new(place, self.lab, host, self.hosts, self.carrier)
        for each in lab.values():
            each.hosts[host] = listed
            each.revoked = dict(self.revoked)
            _save(each)
        soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)
        if not any(
            facts.serial not in self.revoked and facts.not_after > soon
            for facts in authority.issued(host)
        ):
            authority.issue(place / host, host, self.name_of(host))
        return lab[host]

    def revoke(self, host: str) -> list[str]:
        """Revoke every certificate of a host, in the file of every other host.

        The host stays listed, and `add` gives it a new certificate. Agents refuse the
        old ones as soon as their own file has them: copy the folders to the hosts
        again.

        Parameters
        ----------
        host : str
            Name of the host.

        Returns
        -------
        list of str
            Serial numbers that were added to ``revoked``.

        Raises
        ------
        AccessDenied
            The authority is not beside this file: it is where ``hosts init`` ran.
        HostUnavailable
            The file does not list the host.
        """
        self.address_of(host)
        place, authority = self._authority()
        serials = [facts.serial for facts in authority.issued(host)]
        lab = self._lab_files(place)
        new = [serial for serial in serials if serial not in self.revoked]
        self.revoked.update(dict.fromkeys(new, host))
        for each in lab.values():
            if each.me != host:
                each.revoked = dict(self.revoked)
                _save(each)
        return new

    def renew(self) -> list[str]:
        """Take what the file has under ``revoked`` by now, and nothing else of it.

        What was revoked stays so, whatever the file has.

        Returns
        -------
        list of str
            Other hosts of which a certificate is revoked since.

        Raises
        ------
        ConfigError, OSError
            The file cannot be read: nothing has changed here.
        """
        found = type(self).from_yaml(self.path).revoked
        new = {host for serial, host in found.items() if serial not in self.revoked}
        self.revoked = {**self.revoked, **found}
        return sorted(new - {self.me})

    def _authority(self) -> tuple[Path, Authority]:
        place = self.path.absolute().parent.parent
        if not (place / _AUTHORITY).is_dir():
            raise AccessDenied(
                f"{place} does not have the lab's authority: run this in the folder "
                "where `ataraxis hosts init` ran"
            )
        return place, Authority(place / _AUTHORITY)

    def _lab_files(self, place: Path) -> dict[str, Self]:
        """Return the files of the lab by host; this instance for its own.

        What any of them has as revoked is revoked in this instance.
        """
        found: dict[str, Self] = {}
        for path in _files_of(place):
            is_mine = path == self.path.absolute()
            each = self if is_mine else type(self).from_yaml(path)
            found[each.me] = each
            self.revoked.update(each.revoked)
        return found

    # ---- what it states

    @property
    def me_host(self) -> LabHost:
        """The entry of this host."""
        return self.hosts[self.me]

    @property
    def certificate_path(self) -> Path:
        """The certificate of this host."""
        return self.path.parent / self.certificate

    @property
    def key_path(self) -> Path:
        """The key of this host's certificate."""
        return self.path.parent / self.key

    @property
    def authority_path(self) -> Path:
        """The lab's authority, against which other hosts are checked."""
        return self.path.parent / self.authority

    def address_of(self, host: str) -> str:
        """Return ``host:port`` of a host; `HostUnavailable` if it is not listed."""
        if host not in self.hosts:
            hint = did_you_mean(host, list(self.hosts)) or f"it has {_list(self.hosts)}"
            raise HostUnavailable(
                f"host {host!r} is not in {self.path} ({hint}): add it by `ataraxis "
                "hosts add`"
            )
        return _whole(self.hosts[host].address)

    def rights_of(self, host: str) -> frozenset[Right]:
        """Return what a host may do here; nothing if it is not listed."""
        if host not in self.hosts:
            return frozenset()
        return frozenset(self.may.get(host, ["read"]))

    def module_refusal(self, module: str) -> str:
        """Return why no other host may run a module here; '' if it may.

        What follows "module 'name'" in an error: a module above it may be listed.
        """
        parts = module.split(".")
        above = {".".join(parts[: k + 1]) for k in range(len(parts))}
        if self.functions or above & set(self.modules):
            return ""
        listed = ", ".join(self.modules) or "none"
        return (
            f"not under 'modules:' of {self.path} at host {self.me!r} (it lists "
            f"{listed}): add it there, and restart the agent"
        )

    def name_of(self, host: str) -> str:
        """Return the name that a host's certificate must have now."""
        revoked = sum(each == host for each in self.revoked.values())
        return certificate_name(host, revoked)

    def refusal(self, facts: CertificateFacts, dialled: str | None = None) -> str:
        """Return why a peer's certificate is refused; "" if it is accepted.

        Parameters
        ----------
        facts : CertificateFacts
            Of a certificate that the authority has signed and that has not expired.
        dialled : str, optional
            The host that must have it; default: any host of the file.
        """
        host = facts.host
        if facts.lab != self.lab:
            return f"its certificate is of lab {facts.lab!r}, this is lab {self.lab!r}"
        if facts.serial in self.revoked:
            return f"its certificate (serial {facts.serial}) of {host!r} is revoked"
        if dialled is not None and host != dialled:
            return f"its certificate is of host {host!r}, {dialled!r} was dialled"
        if host not in self.hosts:
            return (
                f"its certificate is of host {host!r}, which {self.path} does not list"
            )
        if facts.name != self.name_of(host):
            return (
                f"its certificate has the name {facts.name!r}, the valid one of host "
                f"{host!r} is {self.name_of(host)!r}"
            )
        return ""

    def check_files(self) -> None:
        """Raise `AccessDenied` unless certificate, key and authority are there."""
        given = {
            "certificate": self.certificate,
            "key": self.key,
            "authority": self.authority,
        }
        lacks = [name for name, file in given.items() if not file]
        if lacks:
            raise AccessDenied(
                f"{self.path} has no {_list(lacks)}: hosts reach each other by TLS "
                "only; make the files by `ataraxis hosts init`"
            )
        for path in (self.certificate_path, self.authority_path):
            if not path.is_file():
                raise AccessDenied(
                    f"{path} does not exist: copy this host's folder of `ataraxis "
                    "hosts init` here"
                )
        check_private(self.key_path)


def _save(hosts: Hosts) -> None:
    hosts.to_yaml(hosts.path)
    hosts.path.chmod(0o600)


def _contradictions(hosts: Hosts) -> Iterable[tuple[tuple[str, ...], str, str, str]]:
    """Return place, expected, found and hint of each part that does not fit."""
    known = list(hosts.hosts)
    expected = "a name of letters, digits, - and _"
    names: dict[tuple[str, ...], str] = {("lab",): hosts.lab}
    names |= {("hosts", host): host for host in known}
    for place, name in names.items():
        if not _NAME.fullmatch(name):
            yield place, expected, repr(name), ""
    places: dict[tuple[str, ...], str] = {("me",): hosts.me}
    places |= {("may", host): host for host in hosts.may}
    places |= {("revoked", serial): host for serial, host in hosts.revoked.items()}
    for i, mirror in enumerate(hosts.mirrors):
        places["mirrors", str(i), "host"] = mirror.host
        if mirror.host == hosts.me:
            place = ("mirrors", str(i), "host")
            yield place, "another host", repr(hosts.me), "its streams are here"
    for place, host in places.items():
        if host not in hosts.hosts:
            hint = did_you_mean(host, known) or f"it lists {_list(known)}"
            yield place, "a host of `hosts`", repr(host), hint


def check_host_name(name: str) -> None:
    """Raise `ValueError` unless the name of a host or lab is valid."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name of a host or lab: use 1 to 63 letters, digits, "
            "- and _"
        )


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, ``host`` or ``[v6]:port``.

    Raises `ValueError` if it is another text.

    Examples
    --------
    >>> split_address("192.0.2.10"), split_address("[::1]:80")
    (('192.0.2.10', 7411), ('::1', 80))
    """
    host, port = address, str(PORT)
    if address.startswith("["):
        host, bracket, rest = address[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"address {address!r} is not [IPv6 address]:port")
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise ValueError(f"address {address!r}: {error}") from error
        port = rest[1:] if rest else port
    elif address.count(":") == 1:
        host, _, port = address.partition(":")
    elif ":" in address:
        raise ValueError(f"address {address!r}: put an IPv6 address in brackets")
    is_number = port.isascii() and port.isdigit() and int(port) < 65536
    if not host or not is_number or any(c.isspace() or c in "/@?#" for c in host):
        raise ValueError(f"address {address!r} is not host:port, as 192.0.2.10:{PORT}")
    return host, int(port)


def joined_address(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def size_of(text: int | str) -> int:
    """Return bytes of a text, as ``20 GB`` or ``512 MiB``; `ValueError` if it is none.

    Examples
    --------
    >>> size_of("20 GB"), size_of("1.5 MiB"), size_of(7)
    (20000000000, 1572864, 7)
    """
    found = _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise ValueError(f"{text!r} is not a size in bytes, as 20 GB or 512 MiB")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** _POWERS[found[2]])


def _whole(address: str) -> str:
    return joined_address(*split_address(address))


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def _files_of(place: Path) -> list[Path]:
    """Return the files of a host's folder, or of the hosts' folders in it."""
    own = place / FILE
    return (
        [own.absolute()] if own.exists() else sorted(place.absolute().glob(f"*/{FILE}"))
    )


# ---- lines of fields, for messages


def _root_of(path: Path) -> YamlNode | None:
    return document.parse(path.read_text(encoding="utf-8"), str(path)).root


def _line_of(root: YamlNode | None, place: tuple[str, ...]) -> int | None:
    """Return the line of a field."""
    node, line = root, root.line if root is not None else None
    for part in place:
        node = resolved(node) if node is not None else None
        if isinstance(node, Sequence):
            node = node.items[int(part)]
            line = node.line
        elif isinstance(node, Mapping):
            for key, value in flattened(node):
                if isinstance(key, Scalar) and key.text == part:
                    node, line = value, key.line
    return line


def _shown_place(place: tuple[str, ...]) -> str:
    text = ""
    for part in place:
        text += f"[{part}]" if part.isdigit() and text else f".{part}" if text else part
    return text
