"""What TLS libraries trust: the one file of all certificates, and OpenSSL's settings."""

from collections.abc import Iterator

from virttools.host.bundles.rule import Program, Rule, Wish, links
from virttools.host.sysroot import Sysroot

# Where distributions keep it, and the names by which OpenSSL itself looks (`openssl version -d`).
_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/usr/lib/ssl/cert.pem",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/cert.pem",
    "/usr/lib/ssl/openssl.cnf",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
)


def _wishes(_: Sysroot, program: Program) -> Iterator[Wish]:
    for path in _FILES:
        yield Wish(path, program.path)


RULE = Rule(
    name="certificates",
    about="the host's bundle of CA certificates, and openssl.cnf",
    trigger=links("libssl.so.", "libcurl.so.", "libcurl-gnutls.so.", "libgnutls.so."),
    wishes=_wishes,
)
