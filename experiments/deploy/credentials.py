"""Certificates for TLS and key pairs for devices, made here rather than by openssl and ssh-keygen.

`cryptography` comes with Flower, so it is everywhere that a deployment is made; calling programs
would need them installed, and files of theirs that are not private from their first moment on.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=5 * 365)

_Key = ec.EllipticCurvePrivateKey
_EARLY = timedelta(days=1)  # devices whose clocks are late should not find it not yet valid


def certificates(hosts: Sequence[str]) -> tuple[bytes, bytes, bytes]:
    """Return an authority's certificate, a server certificate signed by it, and the server's key.

    The authority's key is forgotten: nobody, not even its owner, can make a second server that
    devices believe. Devices have key pairs and no certificates, so none needs it later.

    Args:
        hosts: names and addresses under which the server is reached, its subject alternative names.

    Returns:
        Three PEM files.
    """
    signing, serving = _key(), _key()
    name = _name("fednf deployment")
    authority = (
        _certificate(name, name, signing)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_issued_by(signing), critical=False)
        .sign(signing, hashes.SHA384())
    )
    server = (
        _certificate(_name(hosts[0]), name, serving)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_san(host) for host in hosts]), critical=False)
        .add_extension(_issued_by(signing), critical=False)
        .sign(signing, hashes.SHA384())
    )
    key = serving.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return authority.public_bytes(Encoding.PEM), server.public_bytes(Encoding.PEM), key


def key_pair() -> tuple[bytes, bytes]:
    """Return a device's private and public key (P-384), as OpenSSH files, which Flower reads."""
    key = _key()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b"\n"


def _key() -> _Key:
    return ec.generate_private_key(ec.SECP384R1())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _certificate(subject: x509.Name, issuer: x509.Name, key: _Key) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _issued_by(key: _Key) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
