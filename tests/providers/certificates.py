"""Certificates as tests make them: signed by themselves, for whom and how long they like."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LOCAL = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
SOMEBODY_ELSE = x509.DNSName("somebody.invalid")


@dataclass(frozen=True)
class Certificate:
    """A certificate with its key, in one file."""

    path: Path

    def server(self) -> ssl.SSLContext:
        """Shows it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path)
        return context

    def trusting(self) -> ssl.SSLContext:
        """Takes it for an authority."""
        return ssl.create_default_context(cafile=str(self.path))


def made_certificate(
    path: Path, name: x509.GeneralName = LOCAL, ends_in: timedelta = timedelta(hours=1)
) -> Certificate:
    """A certificate that began two hours ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a provider in a test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=2))
        .not_valid_after(now + ends_in)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return Certificate(path)
