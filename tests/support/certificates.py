"""A certificate that signs itself, as a test's authority and server at once."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files of a certificate for 127.0.0.1 and localhost, and of its key."""

    cert: Path
    key: Path


def self_signed(folder: Path) -> Certificate:
    """Make one with the openssl command; good for a day."""
    made = Certificate(folder / "tls.crt", folder / "tls.key")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(made.key), "-out", str(made.cert)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True, timeout=60)
    return made


def encrypted(certificate: Certificate) -> Certificate:
    """The same with a key that needs a passphrase."""
    locked = certificate.key.with_suffix(".locked")
    command = f"openssl ec -aes256 -passout pass:x -in {certificate.key} -out {locked}"
    subprocess.run(command.split(), check=True, capture_output=True, timeout=60)
    return Certificate(certificate.cert, locked)
