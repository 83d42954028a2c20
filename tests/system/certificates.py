"""Certificates of a test's own, signed by themselves."""

import subprocess

_WORDS = ("openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt")
_MORE = ("ec_paramgen_curve:P-256", "-days", "2", "-keyout", "-", "-out", "-")
_BEGIN = "-----BEGIN CERTIFICATE-----"


def certificate(name: str) -> tuple[str, str]:
    """A key and the certificate for this name, as PEM."""
    words = [*_WORDS, *_MORE, "-subj", f"/CN={name}"]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    key, begin, rest = done.stdout.partition(_BEGIN)
    return key, begin + rest
