"""Each scrub operation finds what it is there for, mends that, and nothing else."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import md5
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import ApplyError, UsageError
from virttools.host.facts import Kind, Why
from virttools.manifest.model import Origin
from virttools.scrub.findings import Context, Finding
from virttools.scrub.globs import Paths
from virttools.scrub.operations import BY_NAME, OPERATIONS
from virttools.scrub.planned import PlanView
from virttools.scrub.search import find, mend, mended, select
from virttools.scrub.view import TreeView, View, read
from virttools.tree.actions import CopyFile, LinkFile, MakeDir, MakeSymlink, Plan, WriteFile

HASH = "$6$saltsalt$" + "h" * 86
KEY = (
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgevZzL1gdAFr88hb2\n"
    "-----END PRIVATE KEY-----\n"
)
CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00" + bytes(40)
PROGRAM = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00" + bytes(40)
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "web:x:33:33::/srv/www:/usr/sbin/nologin\n"
    "bob:x:1001:1001:Bob:/home/b/bob:/bin/sh\n"
)

CONTEXT = Context(
    domain="domain1.com",
    other_names=("domain1.com", "domain2.com", "xn--bcher-kva.example"),
    other_addresses=("192.0.2.1", "192.0.2.2", "2001:db8::2"),
    own_addresses=("192.0.2.1",),
    host_names=("host7.example.net",),
    kept_hashes=frozenset({"$6$declared$" + "d" * 86}),
)


@dataclass(frozen=True)
class Link:
    """A symlink of a planted tree."""

    target: str


Content = bytes | str | Link | None
Planted = Mapping[str, Content]


def plant(root: Path, planted: Planted) -> None:
    """Make files (text), folders (None) and links below root."""
    for name, content in planted.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match content:
            case None:
                path.mkdir(exist_ok=True)
            case Link(target):
                path.symlink_to(target)
            case str():
                path.write_text(content)
            case _:
                path.write_bytes(content)


def shown(view: View) -> dict[str, Content]:
    """A tree as plant takes it; folders only where nothing is in them."""
    entries = view.entries()
    parents = {file.path.rpartition("/")[0] for file in entries}
    found: dict[str, Content] = {}
    for file in entries:
        match file.kind:
            case Kind.FILE:
                text = read(view, file.path)
                found[file.path] = text if b"\0" in text else text.decode()
            case Kind.SYMLINK:
                found[file.path] = Link(file.target or "")
            case Kind.DIRECTORY if file.path not in parents:
                found[file.path] = None
            case _:
                pass
    return found


@contextmanager
def opened(root: Path) -> Iterator[int]:
    """A descriptor of the folder root."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Case:
    """before: what is planted; after: what of that is there once the operation is done, None for the same."""

    before: Planted
    after: Planted


def goes(*paths: str, stays: Planted | None = None) -> Case:
    """Files at these paths are removed; what stays does."""
    stays = stays or {"etc/motd": "welcome\n"}
    return Case({**dict.fromkeys(paths, "content\n"), **stays}, stays)


def emptied(*paths: str, gone: tuple[str, ...] = ()) -> Case:
    """Files at these paths stay, with nothing in them; those in `gone` do not."""
    return Case(dict.fromkeys(paths + gone, "content\n"), dict.fromkeys(paths, ""))


IFCFG = "etc/sysconfig/network-scripts/ifcfg-eth0"

CASES: dict[str, Case] = {
    "abrt-data": goes("var/spool/abrt/ccpp-1/backtrace", stays={"var/spool/other": "x"}),
    "backup-files": goes(
        *("etc/hosts~", "etc/x/y.bak", "root/.notes.swp", "srv/a/b.bak", "var/x.dpkg-old"),
        stays={"etc/hosts": "x", "usr/share/x.bak": "x", "etc/dir.bak": None},
    ),
    "bash-history": goes(
        *("root/.bash_history", "home/bob/.bash_history", "home/b/bob/.bash_history-1.tmp"),
        stays={"root/.bashrc": "x", "opt/.bash_history": "x", "home/b/bob/deep/.bash_history": "x"},
    ),
    "blkid-tab": goes("etc/blkid.tab", "run/blkid/blkid.tab", "dev/.blkid.tab.old"),
    "ca-certificates": goes("etc/pki/CA/certs/a.crt", "etc/pki/CA/private/a.key"),
    "cloud-init": goes(
        "var/lib/cloud/instances/i-1/user-data.txt",
        "run/cloud-init/instance-data.json",
        "etc/netplan/50-cloud-init.yaml",
        stays={"etc/cloud/cloud.cfg": "x", "var/lib/clouds": "x"},
    ),
    "crash-data": Case(
        {"var/crash/1.crash": "x", "root/core": CORE, "srv/app.core": CORE, "srv/core": PROGRAM},
        {"srv/core": PROGRAM},
    ),
    "cron-spool": Case(
        {"var/spool/cron/crontabs/bob": "* * * * * x\n", "var/spool/cron/atjobs/.SEQ": "1"},
        {"var/spool/cron/crontabs": None, "var/spool/cron/atjobs": None},
    ),
    "dhcp-client-state": goes("var/lib/dhcp/dhclient.eth0.leases", "var/lib/dhclient/x.lease"),
    "dhcp-server-state": goes("var/lib/dhcpd/dhcpd.leases", "var/lib/misc/dnsmasq.leases"),
    "dovecot-data": goes("var/lib/dovecot/instances"),
    "firewall-rules": goes("etc/sysconfig/iptables", "etc/iptables/rules.v4"),
    "ipa-client": goes("etc/ipa/default.conf", "var/lib/ipa-client/pki/x.pem"),
    "iscsi": goes("etc/iscsi/initiatorname.iscsi", "var/lib/iscsi/nodes/x/default"),
    "kerberos-data": goes("var/lib/krb5kdc/principal", stays={"etc/krb5kdc/kdc.conf": "x"}),
    "kerberos-hostkeytab": goes("etc/krb5.keytab", "etc/apache2/http.keytab"),
    "logfiles": Case(
        {
            "var/log/messages": "login of bob\n",
            "var/log/apache2/error.log.1": "x",
            "var/log/apt/history.log.2.gz": b"\x1f\x8b\0",
            "var/log/dmesg-20240101": "x",
            "var/log/empty.log": "",
        },
        {
            "var/log/messages": "",
            "var/log/apache2": None,
            "var/log/apt": None,
            "var/log/empty.log": "",
        },
    ),
    "lvm-system-devices": goes("etc/lvm/devices/system.devices"),
    "machine-id": Case(
        {
            "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
            "var/lib/dbus/machine-id": "0123456789abcdef0123456789abcdef\n",
            "etc/machine-info": "PRETTY_HOSTNAME=x\n",
        },
        {"etc/machine-id": "", "var/lib/dbus": None},
    ),
    "mail-spool": Case(
        {
            "var/mail/bob": "From x\n",
            "var/spool/mail/eve/new/1.host": "mail",
            "var/spool/postfix/deferred/A/A1": "x",
            "var/spool/postfix/dev/log": "x",
        },
        {
            "var/mail": None,
            "var/spool/mail": None,
            "var/spool/postfix/deferred/A": None,
            "var/spool/postfix/dev/log": "x",
        },
    ),
    "net-hostname": Case(
        {IFCFG: "DEVICE=eth0\nDHCP_HOSTNAME=a\nHOSTNAME=b"}, {IFCFG: "DEVICE=eth0"}
    ),
    "net-hwaddr": Case({IFCFG: "HWADDR=00:11\nDEVICE=eth0\n"}, {IFCFG: "DEVICE=eth0\n"}),
    "net-nmconn": goes(
        "etc/NetworkManager/system-connections/wifi.nmconnection",
        "etc/NetworkManager/system-connections/wired",
        "var/lib/NetworkManager/secret_key",
        stays={"etc/NetworkManager/NetworkManager.conf": "x"},
    ),
    "network-secrets": goes("etc/ppp/chap-secrets", "etc/ipsec.secrets", "etc/openvpn/a/b.key"),
    "other-domains": Case(
        {
            "etc/hosts": (
                "127.0.0.1 localhost\n192.0.2.1 domain1.com\n192.0.2.2 www.domain2.com\n"
                "::ffff:192.0.2.2 x\n2001:DB8:0::2 y\n192.0.2.1 mydomain2.com domain2.com.example\n"
            ),
            "etc/mailname": "host7.example.net\n",
            "etc/nginx/sites/domain2.com.conf": "x",
            "etc/nginx/sites/default": "x",
            "srv/domain2.com/index.html": "x",
            "srv/bücher.example": "x",
            "srv/mydomain2.com": "x",
            "srv/other": Link("/virtual/domain2.com/srv"),
            "srv/own": Link("/virtual/domain1.com/srv"),
        },
        {
            "etc/hosts": (
                "127.0.0.1 localhost\n192.0.2.1 domain1.com\n"
                "192.0.2.1 mydomain2.com domain2.com.example\n"
            ),
            "etc/mailname": "",
            "etc/nginx/sites/default": "x",
            "srv/mydomain2.com": "x",
            "srv/own": Link("/virtual/domain1.com/srv"),
        },
    ),
    "pacct-log": emptied("var/log/account/pacct", gone=("var/log/account/pacct.1.gz",)),
    "package-manager-cache": Case(
        {
            "var/cache/apt/archives/x.deb": "x",
            "var/lib/apt/lists/deb.example_x": "x",
            "var/lib/dpkg/status-old": "x",
            "var/lib/dpkg/status": "x",
        },
        {"var/cache/apt/archives": None, "var/lib/apt/lists": None, "var/lib/dpkg/status": "x"},
    ),
    "pam-data": goes("run/faillock/bob", "var/run/sepermit/x"),
    "passwd-backups": goes(
        "etc/passwd-", "etc/gshadow-", "var/backups/shadow.bak", stays={"etc/passwd": PASSWD}
    ),
    "password-hashes": Case(
        {
            "etc/shadow": (
                f"root:{HASH}:19000:0:99999:7:::\ndaemon:*:1::::::\nold:abJnggxhB/yWI:1::::::\n"
                f"off:!{HASH}:1::::::\nopen::1::::::\nbob:$6$declared${'d' * 86}:1::::::\n"
            ),
            "etc/passwd": f"root:x:0:0::/root:/bin/sh\neve:{HASH}:5:5::/:/bin/sh\n+::::::\n",
            "etc/gshadow": "users:::bob\nstaff:$1$abcdefgh$" + "0" * 22 + "::\n",
            "srv/ftp/etc/group": "root:x:0:\n",
            "etc/security/opasswd": f"bob:1001:1:{HASH}\n",
            "etc/apache2/.htpasswd": "bob:$apr1$x\n",
        },
        {
            "etc/shadow": (
                "root:!:19000:0:99999:7:::\ndaemon:*:1::::::\nold:!:1::::::\n"
                f"off:!:1::::::\nopen:!:1::::::\nbob:$6$declared${'d' * 86}:1::::::\n"
            ),
            "etc/passwd": "root:x:0:0::/root:/bin/sh\neve:!:5:5::/:/bin/sh\n+::::::\n",
            "etc/gshadow": "users:::bob\nstaff:!::\n",
            "srv/ftp/etc/group": "root:x:0:\n",
            "etc/security/opasswd": "",
            "etc/apache2": None,
        },
    ),
    "puppet-data-log": goes("var/log/puppet/masterhttp.log", "var/lib/puppet/ssl/x.pem"),
    "random-seed": goes("var/lib/systemd/random-seed", "var/lib/systemd/credential.secret"),
    "rh-subscription-manager": goes("etc/pki/consumer/key.pem", "etc/pki/entitlement/1.pem"),
    "rhn-systemid": goes("etc/sysconfig/rhn/systemid"),
    "rpm-db": goes("var/lib/rpm/__db.001", stays={"var/lib/rpm/Packages": "x"}),
    "samba-db-log": goes(
        *("var/lib/samba/private/secrets.tdb", "var/lib/samba/x.tdb", "var/log/samba/log.smbd"),
        stays={"etc/samba/smb.conf": "x"},
    ),
    "service-credentials": goes("etc/mysql/debian.cnf", "etc/bind/rndc.key", "etc/apt/auth.conf"),
    "smolt-uuid": goes("etc/smolt/hw-uuid"),
    "ssh-hostkeys": goes(
        "etc/ssh/ssh_host_rsa_key",
        "etc/ssh/ssh_host_rsa_key.pub",
        "etc/dropbear/dropbear_rsa_host_key",
        stays={"etc/ssh/sshd_config": "x"},
    ),
    "ssh-userdir": goes(
        *(
            "root/.ssh/id_rsa",
            "home/bob/.ssh/known_hosts",
            "home/b/bob/.ssh/config",
            "srv/www/.ssh/x",
        ),
        stays={"etc/passwd": PASSWD, "srv/git/.ssh/x": "x"},
    ),
    "sssd-db-log": goes("var/lib/sss/db/cache.ldb", "var/log/sssd/sssd.log"),
    "tls-private-keys": Case(
        {
            "etc/ssl/private/ssl-cert-snakeoil.key": "anything",
            "etc/nginx/a.pem": "CERTIFICATE\n" + KEY,
            "opt/app/tls.key": KEY,
            "etc/nginx/store.p12": b"\0\1",
            "etc/ssl/certs/a.pem": "-----BEGIN CERTIFICATE-----\nMII\n",
            "usr/lib/app/reader.key": "looks for -----BEGIN PRIVATE KEY-----\nand fails\n",
        },
        {
            "etc/ssl/private": None,
            "etc/nginx": None,
            "opt/app": None,
            "etc/ssl/certs/a.pem": "-----BEGIN CERTIFICATE-----\nMII\n",
            "usr/lib/app/reader.key": "looks for -----BEGIN PRIVATE KEY-----\nand fails\n",
        },
    ),
    "tmp-files": Case(
        {"tmp/a/b": "x", "tmp/.hidden": "x", "var/tmp/l": Link("/etc/shadow"), "etc/tmp/x": "x"},
        {"tmp": None, "var/tmp": None, "etc/tmp/x": "x"},
    ),
    "tool-credentials": goes(
        *(
            "root/.netrc",
            "root/.aws/credentials",
            "home/bob/.docker/config.json",
            "srv/www/.pgpass",
        ),
        *(
            "home/b/bob/.config/gh/hosts.yml",
            "etc/skel/.npmrc",
            "root/.gnupg/private-keys-v1.d/1.key",
        ),
        stays={"etc/passwd": PASSWD, "home/bob/.docker/daemon.json": "x", "root/netrc": "x"},
    ),
    "tool-histories": goes(
        "root/.python_history", "home/bob/.lesshst", "home/b/bob/.local/share/fish/fish_history"
    ),
    "udev-persistent-net": goes("etc/udev/rules.d/70-persistent-net.rules"),
    "user-account": Case(
        {
            "etc/passwd": PASSWD,
            "etc/group": "root:x:0:\nbob:x:1001:\n",
            "etc/shadow": "root:!:1::::::\nbob:!:1::::::\n",
            "etc/gshadow": "root:!::\nbob:!::\n",
            "etc/subuid": "bob:100000:65536\n",
            "home/b/bob/mail": "x",
        },
        {
            "etc/passwd": "".join(PASSWD.splitlines(keepends=True)[:2]),
            "etc/group": "root:x:0:\n",
            "etc/shadow": "root:!:1::::::\n",
            "etc/gshadow": "root:!::\n",
            "etc/subuid": "",
            "home/b": None,
        },
    ),
    "utmp": emptied("var/log/wtmp", "run/utmp", "var/log/lastlog", gone=("var/log/btmp.1",)),
    "wireguard": goes("etc/wireguard/wg0.conf", "etc/wireguard/keys/private"),
    "yum-uuid": goes("var/lib/yum/uuid"),
    "zsh-history": goes("root/.zsh_history", "home/bob/.histfile"),
}


@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_operation_mends_what_it_finds_and_nothing_else(name: str, tmp_path: Path) -> None:
    """By itself, each operation leaves just what its case says, and looks ahead to that in a dry run."""
    case = CASES[name]
    plant(tmp_path, case.before)
    with opened(tmp_path) as tree_fd:
        before = TreeView(tree_fd)
        found = find(before, CONTEXT, (name,))
        foreseen = shown(mended(before, found))
        assert shown(TreeView(tree_fd)) == {**shown(before)}
        mend(tree_fd, found)
        after = TreeView(tree_fd)
        assert {one.operation for one in found} == {name}
        assert without_folders(shown(after)) == without_folders(case.after)
        assert foreseen == shown(after)
        assert find(after, CONTEXT, (name,)) == ()
        for path, content in case.after.items():
            assert content is not None or (tmp_path / path).is_dir(), path


def without_folders(tree: Planted) -> dict[str, Content]:
    """The files and links of a tree."""
    return {path: content for path, content in tree.items() if content is not None}


def test_every_case_is_an_operation() -> None:
    """The table above knows the whole registry and nothing else."""
    assert set(CASES) == set(BY_NAME)


def test_descriptions_are_sentences() -> None:
    """--list-operations shows one line each; names are sorted and lower case."""
    names = [operation.name for operation in OPERATIONS]
    assert names == sorted(names)
    assert all(one.summary[0].isupper() and "\n" not in one.summary for one in OPERATIONS)
    assert not any(one.summary.endswith(".") for one in OPERATIONS)


DEFAULT = tuple(operation.name for operation in OPERATIONS if operation.default)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), DEFAULT),
        (("default",), DEFAULT),
        (("defaults",), DEFAULT),
        (("all",), tuple(BY_NAME)),
        (("utmp", "logfiles"), ("logfiles", "utmp")),
        (("utmp,logfiles",), ("logfiles", "utmp")),
        (("-utmp",), tuple(name for name in DEFAULT if name != "utmp")),
        (("+user-account",), tuple(sorted((*DEFAULT, "user-account")))),
        (("default", "-utmp", "+utmp"), DEFAULT),
        (
            ("all", "-default"),
            ("ca-certificates", "firewall-rules", "kerberos-data", "user-account"),
        ),
        (("-all",), ()),
    ],
)
def test_words_choose_operations(words: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """As virt-sysprep has it; a sign at the start means: the defaults, but."""
    assert select(words) == expected


def test_misspelt_operation_is_refused_with_the_likely_one() -> None:
    """An unknown word is an error of usage, not a scrub that does less."""
    with pytest.raises(UsageError) as caught:
        select(("default", "-ssh-hostkey"))
    assert (caught.value.message, caught.value.hint) == (
        "cannot choose the operation 'ssh-hostkey': there is none of that name",
        "did you mean ssh-hostkeys?",
    )


@given(st.lists(st.tuples(st.sampled_from(["", "+", "-"]), st.sampled_from(sorted(BY_NAME)))))
def test_the_last_word_about_an_operation_counts(words: list[tuple[str, str]]) -> None:
    """Whatever came before, an operation is chosen if its last word adds it."""
    chosen = select(tuple(sign + name for sign, name in words))
    for name, sign in {name: sign for sign, name in words}.items():
        assert (name in chosen) == (sign != "-")


@given(st.text())
def test_any_word_is_chosen_or_refused(word: str) -> None:
    """No text makes select fail otherwise."""
    with suppress(UsageError):
        assert set(select((word,))) <= set(BY_NAME)


def findings(root: Path, *keep: str, names: tuple[str, ...] = DEFAULT) -> list[str]:
    """What is found in a folder, as a user reads it."""
    with opened(root) as tree_fd:
        return [str(one) for one in find(TreeView(tree_fd), CONTEXT, names, keep)]


def test_kept_paths_stay_and_what_is_beside_them_goes(tmp_path: Path) -> None:
    """A folder that would go is thinned out around what is kept in it."""
    plant(
        tmp_path,
        {
            "root/.ssh/known_hosts": "x",
            "root/.ssh/id_rsa": KEY,
            "root/.ssh/old/id_dsa": KEY,
            "etc/ssl/private/kept/a.key": KEY,
            "etc/ssl/private/b.key": KEY,
        },
    )
    assert findings(tmp_path, "/root/.ssh/known_*", "etc/ssl/private/kept") == [
        "/etc/ssl/private/b.key: private key (tls-private-keys: remove)",
        "/root/.ssh/id_rsa: a private key (PEM) (tls-private-keys: remove)",
        "/root/.ssh/old: ssh folder of a user (ssh-userdir: remove)",
    ]


def test_kept_files_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """-v names each file that stays because the manifest keeps it."""
    plant(tmp_path, {"root/.netrc": "x", "root/.profile": "x"})
    with caplog.at_level("INFO", logger="virttools.scrub.search"):
        assert findings(tmp_path, "root/*") == []
    assert caplog.messages == ["kept: /root/.netrc"]


@pytest.mark.parametrize(
    ("keep", "path", "is_kept"),
    [
        ("/etc/ssl", "etc/ssl", True),
        ("etc/ssl/", "etc/ssl/a/b", True),
        ("etc/ssl", "etc/ssl2", False),
        ("etc/*.key", "etc/a.key", True),
        ("etc/*.key", "etc/a/b.key", False),
        ("etc/**/*.key", "etc/a/b.key", True),
        ("etc/**/*.key", "etc/b.key", True),
        ("etc/[ab]?", "etc/bx", True),
        ("etc/[!ab]?", "etc/bx", False),
        ("etc/[!ab]", "etc//", False),
        ("etc/x[[]1]", "etc/x[1]", True),
        ("etc/a.b", "etc/axb", False),
    ],
)
def test_globs_mean_what_a_shell_means(keep: str, path: str, is_kept: bool) -> None:  # noqa: FBT001
    """`*` stays within a folder, `**` does not; a path stands for all below it."""
    assert (path in Paths((keep,))) == is_kept


def test_glob_that_is_none_is_refused() -> None:
    """A class that runs backwards is the user's mistake, said in a sentence."""
    with pytest.raises(UsageError, match=r"cannot keep etc/\[z-a\]: it is not a path or glob"):
        Paths(("etc/[z-a]",))


@given(st.text(alphabet="ab/.*?[]!-\\^&|~", max_size=12), st.text(alphabet="ab/.[]", max_size=12))
def test_globs_never_fail_otherwise(keep: str, path: str) -> None:
    """Whatever somebody writes in `keep` is a glob or refused."""
    with suppress(UsageError):
        assert (path in Paths((keep,))) in (True, False)


def test_findings_name_file_line_and_operation(tmp_path: Path) -> None:
    """One plain line each, in order of path and line; a name can't break the line or the terminal."""
    plant(
        tmp_path,
        {
            "etc/hosts": "x\n192.0.2.2 a\n",
            "etc/shadow": f"bob:{HASH}:1:\n",
            "tmp/a\nb\x1b[2J": "x",
        },
    )
    (tmp_path / os.fsdecode(b"tmp/\xff")).write_text("x")
    assert findings(tmp_path) == [
        "/etc/hosts:2: names 192.0.2.2 (other-domains: drop the line)",
        "/etc/shadow:1: password hash of bob (password-hashes: lock)",
        "/tmp/a\\nb\\x1b[2J: temporary file (tmp-files: remove)",
        "/tmp/\\udcff: temporary file (tmp-files: remove)",
    ]


def test_findings_never_show_the_secret(tmp_path: Path) -> None:
    """Neither the line for the user nor the repr in a traceback holds what was found."""
    plant(tmp_path, {"etc/shadow": f"bob:{HASH}:1:\n", "opt/a.key": KEY})
    with opened(tmp_path) as tree_fd:
        found = find(TreeView(tree_fd), CONTEXT, DEFAULT)
    text = repr(found) + str([str(one) for one in found])
    assert (len(found), "hhhh" in text, "MIGH" in text) == (2, False, False)


def test_homes_are_those_of_the_trees_own_passwd(tmp_path: Path) -> None:
    """Through the tree's links; what climbs out of the tree or holds signs of a glob is only a name."""
    plant(
        tmp_path,
        {
            "etc/passwd": "a:x:5:5::/people/a:/bin/sh\nb:x:6:6::/../../etc:/x\nc:x:7:7::/s*v:/x\n",
            "srv/people/a/.netrc": "x",
            "people": Link("/srv/people"),
            "etc/.netrc": "x",
            "srv/.netrc": "x",
        },
    )
    assert findings(tmp_path) == [
        "/etc/.netrc: credentials of a tool (tool-credentials: remove)",
        "/srv/people/a/.netrc: credentials of a tool (tool-credentials: remove)",
    ]


def test_lines_changed_since_are_left_alone(tmp_path: Path) -> None:
    """Findings say which line they mean by its content, not by its number."""
    plant(tmp_path, {"etc/hosts": "192.0.2.2 a\nx\n192.0.2.2 b\n"})
    with opened(tmp_path) as tree_fd:
        found = find(TreeView(tree_fd), CONTEXT, ("other-domains",))
        plant(tmp_path, {"etc/hosts": "new\n192.0.2.2 a # mine\n192.0.2.2 b\n"})
        mend(tree_fd, found)
    assert (tmp_path / "etc/hosts").read_text() == "new\n192.0.2.2 a # mine\n"


def test_mode_of_a_rewritten_file_stays(tmp_path: Path) -> None:
    """A shadow file stays readable to nobody but root, whatever the umask."""
    plant(tmp_path, {"etc/shadow": f"bob:{HASH}:1:\n"})
    (tmp_path / "etc/shadow").chmod(0o640)
    with opened(tmp_path) as tree_fd:
        mend(tree_fd, find(TreeView(tree_fd), CONTEXT, DEFAULT))
    assert (stat.S_IMODE((tmp_path / "etc/shadow").stat().st_mode)) == 0o640


def test_a_log_that_is_open_goes_on_where_it_is(tmp_path: Path) -> None:
    """Emptied in place: who writes to it still does."""
    plant(tmp_path, {"var/log/messages": "old\n"})
    with opened(tmp_path) as tree_fd, (tmp_path / "var/log/messages").open("a") as log:
        mend(tree_fd, find(TreeView(tree_fd), CONTEXT, DEFAULT))
        log.write("new\n")
    assert (tmp_path / "var/log/messages").read_text() == "new\n"


WHY = Why("files", None, Origin("x.toml", 1))


def copy(path: str, source: Path) -> CopyFile:
    """The action that copies a host file as it is."""
    found = source.stat()
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return CopyFile(
        path=path, source=source, mode=0o600, uid=0, gid=0, size=found.st_size,
        mtime_ns=found.st_mtime_ns, identity=identity, xattrs=(), share=False, reflink=False,
        package=None, md5=None, why=WHY,
    )  # fmt: skip


def test_plan_is_scrubbed_by_looking_ahead(tmp_path: Path) -> None:
    """--dry-run names each secret of the files a plan would copy, before anything is built."""
    plant(tmp_path, {"key": KEY, "netrc": "machine x\n", "wtmp": "x" * 384})
    plan = Plan(
        domain="domain1.com",
        actions=(
            MakeDir(path="etc", mode=0o755, uid=0, gid=0, why=WHY),
            copy("etc/ssh/ssh_host_rsa_key", tmp_path / "key"),
            copy("etc/nginx/tls.key", tmp_path / "key"),
            LinkFile(path="opt/tls.key", existing="etc/nginx/tls.key", why=WHY, package=None),
            copy("root/.netrc", tmp_path / "netrc"),
            copy("var/log/wtmp", tmp_path / "wtmp"),
            WriteFile(
                path="etc/hosts", content=b"192.0.2.2 domain2.com\n", mode=0o644, uid=0, gid=0,
                source="etc/hosts.j2", why=WHY,
            ),
            MakeSymlink(path="srv/a", target="/virtual/domain2.com", package=None, why=WHY),
        ),
    )  # fmt: skip
    view = PlanView(plan)
    found = find(view, CONTEXT, DEFAULT)
    assert [str(one) for one in found] == [
        "/etc/hosts:1: names 192.0.2.2 (other-domains: drop the line)",
        "/etc/nginx/tls.key: a private key (PEM) (tls-private-keys: remove)",
        "/etc/ssh/ssh_host_rsa_key: ssh host key (ssh-hostkeys: remove)",
        "/opt/tls.key: a private key (PEM) (tls-private-keys: remove)",
        "/root/.netrc: credentials of a tool (tool-credentials: remove)",
        "/srv/a: it points to something of domain2.com (other-domains: remove)",
        "/var/log/wtmp: list of logins (utmp: empty)",
    ]
    assert shown(mended(view, found)) == {"etc/hosts": "", "var/log/wtmp": ""}


def test_vanished_host_file_is_said(tmp_path: Path) -> None:
    """A plan older than the host fails with a sentence, not with a traceback."""
    plant(tmp_path, {"key": KEY})
    plan = Plan(domain="d", actions=(copy("opt/tls.key", tmp_path / "key"),))
    (tmp_path / "key").unlink()
    with pytest.raises(ApplyError, match=r"cannot read .*/key: No such file or directory"):
        find(PlanView(plan), CONTEXT, DEFAULT)


def test_key_that_a_package_ships_is_nobodys_secret(tmp_path: Path) -> None:
    """A test key under /usr/share/doc is known to all the world: its checksum is the package's."""
    plant(tmp_path, {"key": KEY})
    action = copy("usr/share/doc/x/test.key", tmp_path / "key")
    public = replace(action, md5=md5(KEY.encode(), usedforsecurity=False).hexdigest())
    changed = replace(action, md5="0" * 32)
    for one, count in ((public, 0), (changed, 1)):
        view = PlanView(Plan(domain="d", actions=(one,)))
        assert len(find(view, CONTEXT, DEFAULT)) == count


def test_findings_are_frozen_and_sort_by_path_and_line() -> None:
    """Lines sort by number, the whole file first."""
    rows = [Finding("o", "/a", line, "report", "w") for line in (10, None, 2)]
    assert [one.line for one in sorted(rows)] == [None, 2, 10]
