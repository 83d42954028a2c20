"""The last scan sees secrets and other domains' names, whole and only those, wherever they are."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5, sha256
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.host.facts import Why
from virttools.manifest.model import Origin
from virttools.scrub import shapes
from virttools.scrub.findings import Context
from virttools.scrub.inspection import Cache
from virttools.scrub.neighbours import Neighbours, words, words_of_program
from virttools.scrub.planned import PlanView
from virttools.scrub.search import find, mended, select
from virttools.scrub.secrets import scan
from virttools.scrub.view import WINDOW, BuiltView, TreeView
from virttools.tree.actions import CopyFile, Plan
from virttools.tree.record import Entry

BODY = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2"


def pem(kind: str, *between: str, end: str = "\n") -> str:
    """A private key as openssl(1) and ssh-keygen(1) write them."""
    body = (
        "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2g"
        if "SSH" in kind
        else BODY
    )
    return end.join((f"-----BEGIN {kind}-----", *between, body, f"-----END {kind}-----"))


SECRETS = {
    "pkcs8": (pem("PRIVATE KEY"), "tls-private-keys"),
    "rsa": (pem("RSA PRIVATE KEY"), "tls-private-keys"),
    "ec": (pem("EC PRIVATE KEY"), "tls-private-keys"),
    "encrypted": (
        pem("RSA PRIVATE KEY", "Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0011AABB", ""),
        "tls-private-keys",
    ),
    "pkcs8 encrypted": (pem("ENCRYPTED PRIVATE KEY"), "tls-private-keys"),
    "dos": (pem("PRIVATE KEY", end="\r\n"), "tls-private-keys"),
    "json": ('{"private_key": "' + pem("PRIVATE KEY", end="\\n") + '"}', "tls-private-keys"),
    "yaml": (
        "key: |\n" + "\n".join("    " + x for x in pem("PRIVATE KEY").split("\n")),
        "tls-private-keys",
    ),
    "python": ('KEY = ("' + pem("PRIVATE KEY", end='\\n"\n  "') + '")', "tls-private-keys"),
    "openssh": (pem("OPENSSH PRIVATE KEY"), "ssh-userdir"),
    "ssh2": (f"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: x\n{BODY}\n", "ssh-userdir"),
    "putty": (
        f"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\n{BODY}\n",
        "ssh-userdir",
    ),
    "pgp": (pem("PGP PRIVATE KEY BLOCK", "Version: GnuPG v2", ""), "tool-credentials"),
    "age": ("AGE-SECRET-KEY-1" + "Q" * 58, "tool-credentials"),
    "md5 crypt": ("$1$abcdefgh$" + "a" * 22, "password-hashes"),
    "apr1": ("bob:$apr1$abcdefgh$" + "a" * 22, "password-hashes"),
    "bcrypt": ("$2b$12$" + "a" * 53, "password-hashes"),
    "sha256 crypt": ("$5$rounds=5000$salt$" + "a" * 43, "password-hashes"),
    "sha512 crypt": ("$6$salt$" + "a" * 86, "password-hashes"),
    "scrypt": ("$7$CU..../....salt$" + "a" * 43, "password-hashes"),
    "yescrypt": ("$y$j9T$salt$" + "a" * 43, "password-hashes"),
    "gost-yescrypt": ("$gy$j9T$salt$" + "a" * 43, "password-hashes"),
    "argon2": ("$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$" + "a" * 43, "password-hashes"),
    "phpass": ("$P$B" + "a" * 30, "password-hashes"),
    "aws": ("id = AKIAABCDEFGHIJKLMNOP\nsecret = " + "aB3/" * 10, "tool-credentials"),
    "aws secret": ('AWS_SECRET_ACCESS_KEY="' + "aB3/" * 10 + '"', "tool-credentials"),
    "github": ("ghp_" + "a" * 36, "tool-credentials"),
    "github app": ("gho_" + "a" * 36, "tool-credentials"),
    "github fine": ("github_pat_" + "a" * 82, "tool-credentials"),
    "gitlab": ("glpat-" + "a" * 20, "tool-credentials"),
    "gitlab url": ("https://x/api?private_token=" + "a" * 20, "tool-credentials"),
    "slack": ("xoxb-" + "123456789012-abcdefghijkl", "tool-credentials"),
    "stripe": ("sk_" + "live_" + "a" * 24, "tool-credentials"),
    "google": ("AIza" + "a" * 35, "tool-credentials"),
    "npm": ("//registry/:_authToken=npm_" + "a" * 36, "tool-credentials"),
    "pypi": ("pypi-AgEIcHlwaS5vcmc" + "a" * 60, "tool-credentials"),
    "hugging face": ("hf_" + "a" * 34, "tool-credentials"),
    "jwt": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9." + "a" * 43, "tool-credentials"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_secret_is_found_with_its_line_and_operation(name: str) -> None:
    """Every shape, in the middle of a text."""
    text, operation = SECRETS[name]
    found = shapes.hits(b"# one\n# two\n" + text.encode() + b"\n# end\n")
    assert [hit.operation for hit in found] == [operation]


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\0-----BEGIN RSA PRIVATE KEY-----\0Proc-Type: 4,ENCRYPTED",
        pem("PUBLIC KEY"),
        pem("CERTIFICATE"),
        pem("PGP PUBLIC KEY BLOCK"),
        "root:!:19000::::::\nbin:*:19000::::::\nx:!!:1::::::",
        "$1 $2 $6 $salt$x",
        "$6$salt$short",
        "awk '{print $1$2}'",
        "hf_hub_download npm_config_registry ghp_token glpat-xxxx sk_live_xxx",
        "AKIAIOSFODNN7EXAMPLE",
        "AKIA is a prefix",
        "eyJhbGciOiJIUzI1NiJ9.only.two",
        "AIzaShort",
    ],
)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    """Markers in programs, locked fields, prefixes of tokens and public keys pass."""
    assert shapes.hits(text.encode()) == ()


@pytest.mark.parametrize(
    "unit",
    [
        b"-----BEGIN PRIVATE KEY-----", b"-----BEGIN PRIVATE KEY-----\n ", b"$6$", b"$6$a$", b"eyJ",
        b"eyJaaaaaaaaaa.", b"AKIAABCDEFGHIJKLMNOP", b"a", b"a.", b".", b":", b"1.", b"a-", b"xoxb-",
        b"Private-Lines: 1\n", b"Proc-Type: x\n", b"@a", b"2001:db8:", b"\xff.", b"$2a$10$aaaa",
    ],
)  # fmt: skip
def test_hostile_texts_take_linear_time(unit: bytes) -> None:
    """A tenant's file of a megabyte of anything is looked through; quadratic search would take hours."""
    text = unit * (1_000_000 // len(unit))
    assert len(shapes.hits(text)) >= 0
    assert len(words(text).found) >= 0
    assert len(words_of_program(text).found) >= 0


CONTEXT = Context(
    domain="shop.domain1.com",
    other_names=(
        "domain1.com",
        "domain2.com",
        "shop.domain1.com",
        "xn--bcher-kva.example",
        "other",
    ),
    other_addresses=("192.0.2.1", "192.0.2.2", "2001:db8::2", "127.0.0.1"),
    own_addresses=("192.0.2.1",),
    host_names=("host7.example.net", "localhost"),
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("domain2.com", "domain2.com"),
        ("www.Domain2.COM.", "domain2.com"),
        ("bob@domain2.com,", "domain2.com"),
        ("http://domain2.com:80/x", "domain2.com"),
        ("/etc/nginx/domain2.com.conf", "domain2.com"),
        ("domain2.com-access.log.2.gz", "domain2.com"),
        ("_dmarc.domain2.com", "domain2.com"),
        ("*.domain2.com", "domain2.com"),
        ("mydomain2.com", None),
        ("my-domain2.com", None),
        ("domain2.com.example", None),
        ("domain2.community", None),
        ("domain2-com", None),
        ("domain2", None),
        ("shop.domain1.com", None),
        ("www.shop.domain1.com", None),
        ("domain1.com", "domain1.com"),
        ("mail.domain1.com", "domain1.com"),
        ("host7.example.net", "host7.example.net"),
        ("example.net", None),
        ("bücher.example", "bücher.example"),
        ("www.xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.2", "192.0.2.2"),
        ("192.0.2.2:80 192.0.2.2/24", "192.0.2.2"),
        ("192.0.2.0-192.0.2.2", "192.0.2.2"),
        ("192.0.2.1 192.0.2.20 192.0.2.2.4 1192.0.2.2", None),
        ("2.2.0.192.in-addr.arpa", "2.2.0.192.in-addr.arpa"),
        ("127.0.0.1 localhost", None),
        ("2001:DB8:0:0::2", "2001:db8::2"),
        ("[2001:db8::2]:80", "2001:db8::2"),
        ("2001:db8::2/64", "2001:db8::2"),
        ("2001:db8::2%eth0", "2001:db8::2"),
        ("ip6:2001:db8::2", "2001:db8::2"),
        ("::ffff:192.0.2.2", "192.0.2.2"),
        ("2001:db8::22 2001:db8::2:1", None),
        ("12:30:45 00:11:22:33:44:55", None),
        ("mail bob@other or https://other/", "other"),
        ("any other word", None),
        ("", None),
    ],
)
def test_only_whole_names_of_others_count(text: str, named: str | None) -> None:
    """Subdomains and addresses in any spelling do; substrings, longer names and our own do not."""
    neighbours = Neighbours(CONTEXT)
    assert neighbours.named(words(text.encode())) == named
    assert named is None or neighbours.may_be_in(text.encode(), binary=False)


LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
EDGE = st.sampled_from(
    ["", " ", "\n", "\t", "/", "@", '"', "=", ",", ";", "(", "<", "[", "'", ":", "|", "://"]
)


def naming(text: str, *names: str, addresses: tuple[str, ...] = ()) -> str | None:
    """The neighbour that a text names, for a domain that has nothing to do with either."""
    context = Context(domain="mine.invalid", other_names=names, other_addresses=addresses)
    neighbours = Neighbours(context)
    found = neighbours.named(words(text.encode()))
    # The short look never passes over what the long one finds.
    assert found is None or neighbours.may_be_in(text.encode(), binary=False)
    assert neighbours.named(words_of_program(text.encode())) is None or neighbours.may_be_in(
        text.encode(), binary=True
    )
    return found


@given(NAME, EDGE, EDGE)
def test_a_name_is_found_between_any_signs(name: str, before: str, after: str) -> None:
    """Whatever stands beside a host name in a file does not hide it."""
    for written in (name, name.upper()):
        assert naming(before + written + after, name) == name


@given(NAME, LABEL)
def test_a_longer_name_is_another(name: str, more: str) -> None:
    """Letters before or a label behind make it somebody else's; a label before does not."""
    assert naming(f"{more}{name}", name) is None
    assert naming(f"{more}-{name}", name) is None
    assert naming(f"{name}.{more}.invalid", name) is None
    assert naming(f"{more}.{name}", name) == name


@given(st.ip_addresses(v=6), EDGE)
def test_addresses_match_in_every_spelling(address: IPv6Address, edge: str) -> None:
    """Long, short, in capitals: RFC 5952 is not what everybody writes."""
    plain = address.ipv4_mapped or address
    if not (plain.is_loopback or plain.is_unspecified):
        for text in (address.compressed, address.exploded, address.exploded.upper()):
            assert naming(f"a {text}{edge} b", addresses=(str(address),)) == str(plain)


@given(st.ip_addresses(v=4), st.integers(0, 9))
def test_part_of_an_address_is_none(address: IPv4Address, digit: int) -> None:
    """One digit more is another machine."""
    if not (address.is_loopback or address.is_unspecified):
        text = str(address)
        assert naming(f"x {text};", addresses=(text,)) == text
        assert (
            naming(f"{digit}{text} {text}{digit} {text}.{digit} {digit}.{text}", addresses=(text,))
            is None
        )


@given(st.binary(max_size=400))
def test_any_bytes_are_looked_through(data: bytes) -> None:
    """No content makes the scan fail."""
    assert Neighbours(CONTEXT).named(words(data)) is None or data
    assert Neighbours(CONTEXT).named(words_of_program(data)) is None or data
    assert isinstance(shapes.hits(data), tuple)
    assert isinstance(shapes.hits(data, binary=True), tuple)


@contextmanager
def tree(root: Path, files: dict[str, str | bytes]) -> Iterator[int]:
    """A tree with these files, open."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def scanned(
    root: Path, files: dict[str, str | bytes], *keep: str, pristine: tuple[str, ...] = ()
) -> list[str]:
    """What the scan says of a tree with these files."""
    with tree(root, files) as fd:
        return [str(one) for one in scan(TreeView(fd), CONTEXT, keep, frozenset(pristine))]


HASH = "$6$salt$" + "a" * 86
DIRTY: dict[str, str | bytes] = {
    "etc/app.conf": "a\nb\nhost = www.domain2.com\n# 192.0.2.2\n",
    "etc/app.key": "x\n" + pem("PRIVATE KEY"),
    "etc/shadow": "old:abJnggxhB/yWI:1::::::\nbob:" + HASH + ":1:\n",
    "srv/token.py": "T = 'ghp_" + "a" * 36 + "'\n",
    "srv/domain2.com/index": "x",
    "usr/bin/program": b"\x7fELF\0\0 domain2.com\0 192.0.2.2\0"
    + pem("PRIVATE KEY").encode()
    + b"\0",
}
REPORTED = [
    "/etc/app.conf:3: names domain2.com (other-domains: report)",
    "/etc/app.conf:4: names 192.0.2.2 (other-domains: report)",
    "/etc/app.key:2: a private key (PEM) (tls-private-keys: report)",
    "/etc/shadow:1: password hash of old (password-hashes: report)",
    "/etc/shadow:2: a password hash (password-hashes: report)",
    "/srv/domain2.com: its name is that of domain2.com (other-domains: report)",
    "/srv/token.py:1: a token of GitHub (tool-credentials: report)",
    "/usr/bin/program: names domain2.com (other-domains: report)",
    "/usr/bin/program: a private key (PEM) (tls-private-keys: report)",
]


def test_scan_names_file_line_and_operation(tmp_path: Path) -> None:
    """Texts by line, programs as a whole, file names too; each hit once."""
    assert scanned(tmp_path, DIRTY) == REPORTED


def test_kept_and_pristine_files_are_not_reported(tmp_path: Path) -> None:
    """What the manifest keeps, and what a package ships to all the world, passes."""
    kept = scanned(tmp_path, DIRTY, "etc/app.*", "/srv", pristine=("/usr/bin/program",))
    assert kept == [line for line in REPORTED if line.startswith("/etc/shadow")]


def test_declared_hashes_pass(tmp_path: Path) -> None:
    """A manifest's own users keep the password that it gives them."""
    context = Context(domain="domain1.com", kept_hashes=frozenset({HASH}))
    with tree(tmp_path, {"etc/shadow": f"bob:{HASH}:1:\n", "etc/copy": HASH}) as fd:
        assert scan(TreeView(fd), context) == ()
        assert find(TreeView(fd), context, select(("all",))) == ()


def test_links_to_other_domains_are_reported(tmp_path: Path) -> None:
    """A link's target is content too."""
    (tmp_path / "a").symlink_to("/virtual/domain2.com/x")
    assert scanned(tmp_path, {}) == [
        "/a: it points to something of domain2.com (other-domains: report)"
    ]


def test_cache_serves_other_domains_and_changes_no_answer(tmp_path: Path) -> None:
    """What is remembered of a file is true for every domain; only the answer depends on who asks."""
    cache: Cache = {}
    domain2 = Context(domain="domain2.com", other_names=("shop.domain1.com",))
    with tree(tmp_path, DIRTY) as fd:
        first = scan(TreeView(fd), CONTEXT, cache=cache)
        again = scan(TreeView(fd), CONTEXT, cache=cache)
        other = scan(TreeView(fd), domain2, cache=cache)
    assert [str(one) for one in first] == REPORTED
    assert first == again
    assert "other-domains" not in {one.operation for one in other}


def test_large_files_are_read_in_windows(tmp_path: Path) -> None:
    """A key that lies across two windows is found, at its line; once."""
    line = "x" * 99 + "\n"
    head = line * (WINDOW // 100)
    head += "x" * (WINDOW - len(head) - 30) + "\n"
    text = head + pem("PRIVATE KEY") + "\n" + line * 10 + "domain2.com\n"
    assert scanned(tmp_path, {"srv/big": text}) == [
        f"/srv/big:{head.count(chr(10)) + 1}: a private key (PEM) (tls-private-keys: report)",
        f"/srv/big:{head.count(chr(10)) + 14}: names domain2.com (other-domains: report)",
    ]


def test_holes_cost_nothing(tmp_path: Path) -> None:
    """A terabyte of nothing is passed over; what lies behind it is not."""
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(1 << 40)
        file.write(pem("PRIVATE KEY").encode())
    assert scanned(tmp_path, {}) == ["/sparse: a private key (PEM) (tls-private-keys: report)"]


def test_many_hits_in_a_file_are_told_up_to_a_hundred(tmp_path: Path) -> None:
    """Nobody reads more; the build fails all the same."""
    text = "".join(f"domain2.com {number} {HASH}\n" for number in range(500))
    assert len(scanned(tmp_path, {"srv/list": text})) == 200


def test_scan_of_a_built_tree_reads_what_is_on_disk(tmp_path: Path) -> None:
    """Entries say what there is; contents and digests come from the staging folder."""
    files: dict[str, str | bytes] = {"etc/a": "domain2.com\n", "etc/b": "fine\n"}
    entries = [
        Entry(path=f"/{name}", type="file", mode=0o644, uid=0, gid=0, size=len(text),
              sha256=sha256(str(text).encode()).hexdigest(), rule="files", origin="x:1")
        for name, text in files.items()
    ]  # fmt: skip
    with tree(tmp_path, files) as fd:
        found = scan(BuiltView(fd, entries), CONTEXT)
    assert [str(one) for one in found] == ["/etc/a:1: names domain2.com (other-domains: report)"]


def test_scan_can_look_ahead(tmp_path: Path) -> None:
    """What scrubbing will mend is not reported by the scan of a dry run; what it won't is."""
    with tree(tmp_path, DIRTY) as fd:
        view = TreeView(fd)
        after = mended(view, find(view, CONTEXT, select(("default",))))
        left = [str(one) for one in scan(after, CONTEXT)]
    assert left == [
        line for line in REPORTED if not line.startswith(("/etc/app.key", "/etc/sh", "/srv/d"))
    ]


def copied(source: Path, checksum: str | None) -> PlanView:
    """A plan that copies one host file."""
    identity = (0, 0, 0, 0, 0)
    action = CopyFile(
        path="etc/x", source=source, mode=0o644, uid=0, gid=0, size=source.stat().st_size,
        mtime_ns=0, identity=identity, xattrs=(), share=False, reflink=False,
        package=("x", "1"), md5=checksum, why=Why("packages", None, Origin("x", 1)),
    )  # fmt: skip
    return PlanView(Plan(domain="d", actions=(action,)))


def test_content_of_a_package_is_public(tmp_path: Path) -> None:
    """A conffile as its package ships it tells nobody anything, whatever names are in it."""
    source = tmp_path / "x"
    source.write_text("see www.domain2.com\n")
    checksum = md5(source.read_bytes(), usedforsecurity=False).hexdigest()
    assert scan(copied(source, checksum), CONTEXT) == ()
    assert len(scan(copied(source, "0" * 32), CONTEXT)) == 1
    assert len(scan(copied(source, None), CONTEXT)) == 1


def test_unchanged_files_of_packages_are_public_in_a_living_tree(tmp_path: Path) -> None:
    """Libraries hold the keys of their own self-tests; one that was changed since is looked at again."""
    key = pem("PRIVATE KEY").encode()
    files: dict[str, str | bytes] = {
        "usr/lib/a.so": b"\0" + key,
        "usr/lib/b.so": b"\0\0" + key,
        "etc/c": key,
    }
    recorded = [
        Entry(path=f"/{name}", type="file", mode=0o644, uid=0, gid=0, package="gnutls",
              sha256=sha256(b"\0" + key if name.startswith("usr") else key).hexdigest(), rule="x", origin="x:1")
        for name in files
    ]  # fmt: skip
    with tree(tmp_path, files) as fd:
        found = scan(TreeView(fd, recorded), CONTEXT)
    assert [one.path for one in found] == ["/etc/c", "/usr/lib/b.so"]
