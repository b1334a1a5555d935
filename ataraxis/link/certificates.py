"""Certificates of a lab: an authority of its own, and one certificate for each host.

The certificate's common name is the host. After its revocation a host's next
certificate is ``host~2``, so that a carrier that sees only names refuses the old one.
"""

from __future__ import annotations

import datetime
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ataraxis.errors import AccessDenied

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY_YEARS = 20
HOST_YEARS = 10
_DAYS = 365
_EARLY = datetime.timedelta(days=1)  # clocks of a lab may be wrong
_TURN = "~"
_AUTHORITY, _KEY, _ISSUED = "authority.pem", "authority.key", "issued"
_NEEDED = "cryptography is needed to make certificates: pip install 'ataraxis[cluster]'"


@dataclass(frozen=True)
class CertificateFacts:
    """What a certificate states."""

    name: str
    """Its common name: the host, and after revocations ``host~2``."""
    lab: str
    serial: str
    """Hexadecimal, lower case, without leading zeros."""
    not_after: datetime.datetime
    """When it expires, UTC."""

    @property
    def host(self) -> str:
        """Name of the host."""
        return host_of(self.name)


def host_of(name: str) -> str:
    """Return the host of a certificate's name.

    Examples
    --------
    >>> host_of("gpu"), host_of("gpu~2")
    ('gpu', 'gpu')
    """
    return name.partition(_TURN)[0]


def certificate_name(host: str, revoked: int) -> str:
    """Return the name of the certificate that is valid after so many revocations.

    Examples
    --------
    >>> certificate_name("gpu", 0), certificate_name("gpu", 1)
    ('gpu', 'gpu~2')
    """
    return f"{host}{_TURN}{revoked + 1}" if revoked else host


def facts_of(certificate: dict[str, Any]) -> CertificateFacts:
    """Return the facts of what `ssl.SSLSocket.getpeercert` returns.

    Raises `AccessDenied` if it is not a certificate of a host.
    """
    import ssl

    subject = dict(pair for group in certificate.get("subject", ()) for pair in group)
    name, lab = subject.get("commonName", ""), subject.get("organizationName", "")
    serial = str(certificate.get("serialNumber", "")).lower().lstrip("0")
    if not name or not lab or not serial:
        raise AccessDenied(
            f"the certificate names host {name!r} of lab {lab!r}: use one of "
            "`ataraxis hosts init`"
        )
    ends = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    not_after = datetime.datetime.fromtimestamp(ends, datetime.UTC)
    return CertificateFacts(name, lab, serial, not_after)


def check_private(path: Path) -> None:
    """Raise `AccessDenied` unless only this user can read the file, and can read it."""
    try:
        status = path.stat()
        with path.open("rb"):
            pass
    except OSError as error:
        raise AccessDenied(
            f"{path} cannot be read: {error.strerror}; copy this host's folder of "
            "`ataraxis hosts init` here"
        ) from error
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise AccessDenied(
            f"{path} has mode {mode:04o}, others can read the key: make it 0600 by "
            f"chmod 600 {path}"
        )
    if status.st_uid not in (os.geteuid(), 0):
        raise AccessDenied(
            f"{path} belongs to user {status.st_uid}: use a file of this user"
        )


# ---- making them, with cryptography


class Authority:
    """The authority of a lab: a folder that stays where ``hosts init`` ran.

    Parameters
    ----------
    folder : Path
        With ``authority.pem``, ``authority.key`` and ``issued/``.

    Raises
    ------
    AccessDenied
        The folder has no authority, or others can read its key.
    ImportError
        cryptography is not installed.
    """

    def __init__(self, folder: Path) -> None:
        _import()
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        self.folder = folder
        check_private(folder / _KEY)
        try:
            made = x509.load_pem_x509_certificate((folder / _AUTHORITY).read_bytes())
            key = serialization.load_pem_private_key((folder / _KEY).read_bytes(), None)
        except (OSError, ValueError) as error:
            raise AccessDenied(
                f"{folder} does not have an authority: {error}; it is in the folder "
                "where `ataraxis hosts init` ran"
            ) from error
        self._certificate: x509.Certificate = made
        self._key: Any = key

    @classmethod
    def create(cls, folder: Path, lab: str) -> Authority:
        """Make the authority of a lab in a new folder, mode 0700.

        Raises `FileExistsError` if the folder exists.
        """
        _import()
        folder.mkdir(mode=0o700)
        (folder / _ISSUED).mkdir(mode=0o700)
        key = _new_key()
        _write(folder / _AUTHORITY, _pem(_signed_authority(lab, key)))
        _write(folder / _KEY, _key_pem(key))
        return cls(folder)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return _pem(self._certificate)

    def issue(
        self, folder: Path, host: str, name: str, *, days: int = HOST_YEARS * _DAYS
    ) -> CertificateFacts:
        """Write ``host.pem``, ``host.key`` and ``authority.pem`` into a folder.

        Parameters
        ----------
        folder : Path
            Made if it is missing, mode 0700.
        host : str
            The host.
        name : str
            The certificate's name: `certificate_name` of the host.
        days : int, optional
            How long it is valid; negative: it has expired already. Not longer than
            the authority.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        key = _new_key()
        made = _signed_host(self._certificate, self._key, key, (host, name), days)
        facts = _facts(made)
        _write(self.folder / _ISSUED / f"{host}-{facts.serial}.pem", _pem(made))
        _write(folder / f"{host}.key", _key_pem(key))
        _write(folder / f"{host}.pem", _pem(made))
        _write(folder / _AUTHORITY, self.pem)
        return facts

    def issued(self, host: str) -> list[CertificateFacts]:
        """Return every certificate that was issued for a host."""
        from cryptography import x509

        found = []
        for path in sorted((self.folder / _ISSUED).glob(f"{host}-*.pem")):
            facts = _facts(x509.load_pem_x509_certificate(path.read_bytes()))
            if facts.host == host:
                found.append(facts)
        return found


def read_certificate(path: Path) -> CertificateFacts:
    """Return the facts of a certificate in PEM.

    Raises `AccessDenied` if the file is not one.
    """
    _import()
    from cryptography import x509

    try:
        return _facts(x509.load_pem_x509_certificate(path.read_bytes()))
    except (OSError, ValueError, IndexError) as error:
        raise AccessDenied(f"{path} is not a certificate in PEM: {error}") from error


def _import() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise ImportError(_NEEDED) from error


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    from cryptography.x509.oid import NameOID

    subject = certificate.subject
    name = subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    lab = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
    serial = f"{certificate.serial_number:x}"
    return CertificateFacts(
        str(name), str(lab), serial, certificate.not_valid_after_utc
    )


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _named(lab: str, name: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, lab),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _usage(is_authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _signed_authority(lab: str, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _named(lab, f"{lab} authority")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - _EARLY)
        .not_valid_after(_now() + datetime.timedelta(days=AUTHORITY_YEARS * _DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_authority=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _signed_host(
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    key: EllipticCurvePrivateKey,
    names: tuple[str, str],
    days: int,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    host, name = names
    begins = _now() - _EARLY
    ends = _now() + datetime.timedelta(days=days)
    if days < 0:
        begins = ends - _EARLY
    ends = min(ends, authority.not_valid_after_utc)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(_named(_facts(authority).lab, name))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                authority_key.public_key()
            ),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step; only this user can read it."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
