"""Secrets and certificates of a cluster: made once, kept as files for their owner alone, and handed over as Secrets.

What the cluster has is the truth: the databases have those passwords. So whatever is missing among the files is first
taken from there, and only what is nowhere is made anew.
"""

import base64
import hashlib
import ipaddress
import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from chassis.secrets import SERVICES, generate
from deploy.commands import Kubectl, Object
from deploy.target import NAMESPACE

DATABASE_HOST = "{service}-database"
AUTHORITY_LIFE = timedelta(days=3650)
CERTIFICATE_LIFE = timedelta(days=90)
RENEWED_BEFORE_END = timedelta(days=30)
HOSTS = ("localhost", "souk.localhost", "127.0.0.1", "::1")


def files() -> dict[str, dict[str, str]]:
    """The Secrets, each with its keys and the files that hold them, below the folder of secrets.

    A role has a Secret of its own for each purpose, so that a pod sees the one that it works as and no other.
    """
    found: dict[str, dict[str, str]] = {
        "postgres": {"password": "postgres/password"},
        "postgres-roles": {},
        "edge-tls": {"tls.crt": "edge/tls.crt", "tls.key": "edge/tls.key"},
        "grafana": {"admin_password": "grafana/admin_password"},
    }
    for service in SERVICES:
        keys = ["service_key", "service_jwks"]
        if service == "user":
            keys += ["key_encryption_key", "admin_password"]
        found[service] = {key: f"{service}/{key}" for key in keys}
        found[f"{service}-database"] = {"database_url": f"{service}/database_url"}
        found[f"{service}-owner"] = {"database_url": f"{service}_owner/database_url"}
        for role in (service, f"{service}_owner"):
            found["postgres-roles"][f"{role}_password"] = f"postgres/{role}_password"
    return found


def recover(folder: Path, kubectl: Kubectl) -> int:
    """Take from the cluster what is missing among the files, and return how many there were."""
    recovered = 0
    there = {item["metadata"]["name"]: item.get("data", {}) for item in kubectl.items("secrets")}
    for name, keys in files().items():
        for key, path in keys.items():
            file = folder / path
            if not file.exists() and key in there.get(name, {}):
                write(file, base64.b64decode(there[name][key]))
                recovered += 1
    return recovered


def make(folder: Path) -> None:
    """Make what is missing, and renew the certificate where it ends soon."""
    generate(folder, database_host=DATABASE_HOST, owners=True)
    make_certificate(folder)


def secrets(folder: Path) -> list[Object]:
    """The Secrets as objects."""
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/part-of": "souk"}},
            "type": "kubernetes.io/tls" if name == "edge-tls" else "Opaque",
            "data": {key: base64.b64encode((folder / path).read_bytes()).decode() for key, path in keys.items()},
        }
        for name, keys in files().items()
    ]


def digests(objects: list[Object]) -> dict[str, str]:
    """A digest of each Secret's content."""
    found: dict[str, str] = {}
    for item in objects:
        data: Mapping[str, str] = item["data"]
        content = "\0".join(f"{key}={data[key]}" for key in sorted(data))
        found[item["metadata"]["name"]] = hashlib.sha256(content.encode()).hexdigest()
    return found


def make_certificate(folder: Path, now: datetime | None = None) -> None:
    """Make a certificate authority of this machine's own and a certificate for the edge, where they are missing or end
    soon. Clients trust `authority/ca.crt`; its key never leaves this machine.
    """
    now = now or datetime.now(UTC)
    authority, edge = folder / "authority", folder / "edge"
    if not _lasts(authority / "ca.crt", now) or not (authority / "ca.key").exists():
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Souk, local certificate authority")])
        builder = _builder(name, name, key.public_key(), now, AUTHORITY_LIFE).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        certificate = builder.add_extension(_usage(authority=True), critical=True).sign(key, hashes.SHA256())
        write(authority / "ca.key", _private(key))
        write(authority / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    issuer = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    if _lasts(edge / "tls.crt", now) and (edge / "tls.key").exists() and _issued_by(edge / "tls.crt", issuer):
        return
    issuer_key = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOSTS[0])])
    alternatives = x509.SubjectAlternativeName([_alternative(host) for host in HOSTS])
    certificate = (
        _builder(name, issuer.subject, key.public_key(), now, CERTIFICATE_LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(alternatives, critical=False)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    write(edge / "tls.key", _private(key))
    write(edge / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _lasts(path: Path, now: datetime) -> bool:
    if not path.exists():
        return False
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        return False
    return certificate.not_valid_after_utc - now > RENEWED_BEFORE_END


def _issued_by(path: Path, issuer: x509.Certificate) -> bool:
    try:
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(issuer)
    except Exception:  # whatever is wrong with it, another one is made
        return False
    return True


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read."""
    path.parent.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
