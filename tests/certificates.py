"""Certificates made on the spot."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class IssuedFiles:
    """PEM files of a server's certificate, its private key, and the authority that signed it."""

    certificate: Path
    private_key: Path
    authority: Path


def issue(directory: Path, *, password: bytes | None = None) -> IssuedFiles:
    """Make an authority and a certificate for this machine; files that are there are replaced."""
    directory.mkdir(exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority_name = _name("authority")
    authority = (
        _builder(authority_name, authority_name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        _builder(_name("gateway"), authority_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files = IssuedFiles(directory / "tls.crt", directory / "tls.key", directory / "ca.crt")
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pkcs8 = serialization.PrivateFormat.PKCS8
    pem = serialization.Encoding.PEM
    _replace(files.authority, authority.public_bytes(pem))
    _replace(files.private_key, key.private_bytes(pem, pkcs8, encryption))
    _replace(files.certificate, certificate.public_bytes(pem))
    return files


def _replace(path: Path, content: bytes) -> None:
    """As renewal tools do it: never half a file."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: x509.Name, issuer: x509.Name, public_key: Any) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
