"""The checks of `virt doctor`: each says one thing of facts that are wrong, and nothing of good ones."""

import os
import subprocess
from typing import Any

import pytest

from tests import documents
from virttools.devlog.freshness import State
from virttools.doctor import checks, mending
from virttools.doctor.checks import CHECKS
from virttools.doctor.facts import (
    BrokenLink,
    HostsLine,
    Inetd,
    InetdLine,
    Lack,
    Machine,
    Names,
    OldFile,
    Person,
    Refused,
    RoutesFile,
    Status,
    Tree,
    Walked,
)
from virttools.doctor.finding import Finding
from virttools.errors import Problem
from virttools.manifest import load
from virttools.manifest.model import DevLog, Layer, Manifest
from virttools.serve import routes
from virttools.tree.ranges import Held
from virttools.tree.record import Entry

FOLDER = Status("directory", 0o755, 0, 0)
OWN = Layer(
    "/etc/virttools/manifests/a.com.toml",
    'binaries = ["/bin/sh"]\nusers = [{ name = "bob", uid = 1000 }]\n'
    'services = [{ name = "smtp", port = 25, program = "/usr/sbin/sendmail", args = ["-bs"], user = "bob" }]\n',
)
IN_PART = Layer("command line", 'profiles = ["login"]\naddresses = ["192.0.2.1"]\n')
DAEMON = Layer(OWN.file, 'daemons = [{ name = "www", program = "/usr/sbin/nginx" }]\n')
TOOLS = tuple(
    Entry(path=f"/usr/bin/{name}", type="file", mode=0o755, uid=0, gid=0, rule="", origin="m:1")
    for name in ("sh", "cat", "chown", "chmod", "ln", "install", "cp", "mv")
)
BOB = Person("bob", 1000, 1000, "/home/bob", "/bin/sh", has_home=True)


def entry(path: str, **more: Any) -> Entry:  # noqa: ANN401  the fields of an entry
    fields = {"type": "file", "mode": 0o644, "uid": 0, "gid": 0, "rule": "", "origin": "m.toml:3"}
    return Entry(path=path, **{**fields, **more})


def walked(*gone: str, entries: tuple[Entry, ...] = TOOLS, **more: Any) -> Walked:  # noqa: ANN401
    there = {
        one.path: Status(one.type, one.mode, one.uid, one.gid)
        for one in entries
        if one.path not in gone
    }
    return Walked(**{"top": FOLDER, "statuses": there, **more})


def tree(**more: Any) -> Tree:  # noqa: ANN401  the fields of a tree
    """A domain that nothing is wrong with."""
    facts = {
        "domain": "a.com",
        "path": "/virtual/a.com",
        "layers": (OWN,),
        "manifest": load.reload((OWN,)),
        "addresses": ("192.0.2.1",),
        "entries": TOOLS,
        "walked": walked(),
        "people": (BOB,),
        "groups": (("bob", 1000),),
    }
    return Tree(**{**facts, **more})


def line(**more: Any) -> InetdLine:  # noqa: ANN401  the fields of a line
    facts = {
        "line": 4,
        "label": "ftp",
        "conf": "/virtual/conf.ftp",
        "argv": ("/usr/sbin/vsftpd",),
        "is_wait": False,
        "is_limited": True,
        "is_listener": False,
    }
    return InetdLine(**{**facts, **more})


def inetd(*lines: InetdLine, problems: tuple[Problem, ...] = ()) -> Inetd:
    return Inetd("/etc/inetd.conf", lines, problems)


def file(text: str = "", **more: Any) -> RoutesFile:  # noqa: ANN401  the fields of a file
    path = "/virtual/conf.ftp"
    return RoutesFile(**{"path": path, "routes": routes.parse(text, path), **more})


def machine(**more: Any) -> Machine:  # noqa: ANN401  the fields of a machine
    return Machine(**{"has_server": True, "resolvers": ("192.0.2.53",), **more})


def examined(here: Machine, *trees: Tree) -> list[Finding]:
    found = list(checks.of_machine(here))
    for one in trees:
        found += checks.of_tree(here, one)
    return [*found, *checks.of_all(here, [checks.resident(one) for one in trees])]


AGAIN = "virt remove --keep a.com && virt create a.com"
LACK = Lack("openat2", "why", "boot it", is_needed=True)
LOST = entry("/usr/bin/passwd", mode=0o4755)
PASSWD = entry("/etc/passwd")
GONE = entry("/usr/bin/sort", source="/usr/bin/sort", mode=0o755)
GONE_LIB = entry("/usr/lib/libc.so.6", source="/usr/lib/libc.so.6")
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("uid-range", {"held": (Held(range(7, 131073), "eve's"),)}, {"uid_base": 131072, "people": (), "manifest": Manifest()}, f"{AGAIN} --uid-base auto"),
    ("uid-outside", {"free_base": 131072}, {"outsiders": ("process 7 (x)",)}, f"{AGAIN} --uid-base 131072"),
    ("kernel-feature", {"lacks": (LACK,)}, {}, "boot it"),
    ("user-namespaces", {"lacks": (Lack("u", "c", "sysctl -w x=1", is_needed=False),)}, {}, "sysctl -w x=1"),
    ("root-unsafe", {"refused": Refused("", "m", "chmod go-w /x")}, {}, "chmod go-w /x"),
    ("root-mount", {"mount": ("/virtual", ("nosuid", "nodev"))}, {}, "mount -o remount,bind,suid,dev /virtual"),
    ("staging-leftover", {"leftovers": ("a b.1.f",)}, {}, "find '/virtual/.virt/staging/a b.1.f' -xdev -delete"),
    ("record-damaged", {"damaged": (Refused("b.com", "m", "h"),)}, {}, "h"),
    ("record-without-tree", {"unrecorded": (("b.com", "b.com.json"),)}, {}, "rm /virtual/.virt/records/b.com.json"),
    (
        "link-broken",
        {"links": (BrokenLink("/usr/bin/virtvi", "/opt/virt", "vi"),)},
        {},
        "rm /usr/bin/virtvi && virt link --bindir /usr/bin vi",
    ),
    (
        "address-missing",
        {"absent": frozenset({"192.0.2.1"}), "interface": "eth0"},
        {},
        "virt ip sync --interface eth0",
    ),
    (
        "hosts-astray",
        {"hosts": (HostsLine(3, "192.0.2.9", ("www", "a.com")), HostsLine(4, "192.0.2.1", ("a.com",)))},
        {},
        "sed -i '3s/^/#/' /etc/hosts",
    ),
    ("tree-unreadable", {}, {"fault": "a folder was moved meanwhile"}, "virt doctor a.com"),
    ("service-no-address", {}, {"addresses": ()}, f"{AGAIN} --ip ADDRESS"),
    (
        "routes-unreadable",
        {"routes": (RoutesFile(path="/virtual/conf.x", problems=(Problem("/virtual/conf.x", 2, "no"),)),)},
        {},
        "sed -i '2s/^/#/' /virtual/conf.x",
    ),
    (
        "routes-unreadable",
        {"routes": (RoutesFile(path="/virtual/conf.ftp", fault="absent"),), "inetd": inetd(line())},
        {},
        "sed -i '4s/^/#/' /etc/inetd.conf",
    ),
    (
        "routes-unreadable",
        {
            "routes": (RoutesFile(path="/virtual/conf.ftp", fault="absent"),),
            "inetd": inetd(line()),
            "unsynced": ("conf.ftp",),
        },
        {},
        "virt services sync",
    ),
    (
        "routes-untrusted",
        {"routes": (file(trust="it is bob's"),)},
        {},
        "chown root /virtual/conf.ftp && chmod go-w /virtual/conf.ftp",
    ),
    (
        "route-no-tree",
        {"routes": (file("# x\n192.0.2.9 /virtual/b.com\n", faults={"/virtual/b.com": "absent"}),)},
        {},
        "sed -i '2s/^/#/' /virtual/conf.ftp",
    ),
    (
        "route-no-tree",
        {
            "routes": (
                file("192.0.2.9 /virtual/b.com\n", faults={"/virtual/b.com": "absent"}, is_ours=True),
            )
        },
        {},
        "virt services sync",
    ),
    (
        "route-hidden",
        {"routes": (file("192.0.2.9 /virtual/a.com\n192.0.2.9 /virtual/a.com\n"),)},
        {},
        "sed -i '2s/^/#/' /virtual/conf.ftp",
    ),
    (
        "route-contested",
        {"routes": (file("192.0.2.1 /virtual/b.com\n"),), "owners": {"c0000201": "a.com"}},
        {},
        "sed -i '1s/^/#/' /virtual/conf.ftp",
    ),
    ("routes-unsynced", {"unsynced": ("conf.ftp",)}, {}, "virt services sync"),
    (
        "inetd-line",
        {"inetd": inetd(problems=(Problem("/etc/inetd.conf", 7, "odd"),))},
        {},
        "sed -i '7s/^/#/' /etc/inetd.conf",
    ),
    (
        "inetd-limit",
        {"inetd": inetd(line(is_limited=False))},
        {},
        r"sed -i '4s/\<nowait\>\(\.256\)\?/nowait.10000/' /etc/inetd.conf",
    ),
    (
        "inetd-wait",
        {"inetd": inetd(line(is_wait=True, is_listener=True))},
        {},
        r"sed -i '4s/\<wait\>/nowait.10000/' /etc/inetd.conf",
    ),
    ("log-link", {}, {"log": State.STALE}, "virt log relink a.com"),
    ("log-link", {}, {"log": State.APART}, "virt log relink --bind a.com"),
    ("log-link", {}, {"log": State.UNHEARD, "devlog": DevLog.SHARED}, "syslogd -p /virtual/log"),
    ("log-server", {}, {"log": State.UNHEARD}, "virt log serve"),
    ("serve-not-running", {"has_server": False}, {}, "virt serve"),
    (
        "serve-not-running",
        {"has_server": False, "inetd": inetd(line())},
        {"layers": (DAEMON,), "manifest": load.reload((DAEMON,))},
        "virt serve",
    ),
    (
        "passwd-missing",
        {},
        {"people": None, "entries": (*TOOLS, PASSWD), "walked": walked(entries=(*TOOLS, PASSWD))},
        ("virt exec --domain a.com -- sh -c 'rm -f /etc/passwd && echo \"$1\" >/etc/passwd"
        " && chmod 0644 /etc/passwd' sh root:x:0:0:root:/root:/bin/sh"),
    ),
    (
        "service-user",
        {},
        {"people": ()},
        ("virt exec --domain a.com -- sh -c 'echo \"$1\" >>/etc/passwd' sh"
        " bob:x:1000:1000::/home/bob:/bin/bash bob:x:1000:"),
    ),
    (
        "home-missing",
        {},
        {"people": (Person("bob", 1000, 1000, "/home/b c", "/bin/sh", has_home=False),)},
        "virt exec --domain a.com -- install -d -m 0750 -o 1000 -g 1000 '/home/b c'",
    ),
    ("tree-owner", {}, {"walked": walked(top=Status("directory", 0o775, 0, 5))}, "chown root:root /virtual/a.com && chmod go-w /virtual/a.com"),
    (
        "path-missing",
        {},
        {"entries": (*TOOLS, GONE)},
        ("virt exec --domain a.com --writable -- sh -c 'cat >\"$1\" && chown \"$2\" \"$1\" &&"
        " chmod \"$3\" \"$1\"' sh /usr/bin/sort 0:0 0755 </usr/bin/sort"),
    ),
    ("path-missing", {}, {"entries": (*TOOLS, GONE_LIB)}, AGAIN),
    (
        "path-missing",
        {},
        {"entries": (*TOOLS, entry("/usr/bin/vi", type="symlink", target="vim"))},
        "virt exec --domain a.com --writable -- ln -s vim /usr/bin/vi",
    ),
    (
        "path-missing",
        {},
        {"entries": (*TOOLS, entry("/opt", type="directory", mode=0o755))},
        "virt exec --domain a.com --writable -- install -d -m 0755 -o 0 -g 0 /opt",
    ),
    (
        "path-replaced",
        {},
        {
            "entries": (*TOOLS, entry("/etc", type="directory"), entry("/etc/motd")),
            "walked": walked(
                statuses={
                    "/etc": Status("symlink", 0o777, 0, 0),
                    **{one.path: Status("file", 0o755, 0, 0) for one in TOOLS},
                }
            ),
        },
        AGAIN,
    ),
    ("etc-missing", {}, {"entries": (*TOOLS, entry("/etc/motd"))}, AGAIN),
    (
        "set-id-lost",
        {},
        {
            "entries": (*TOOLS, LOST),
            "walked": walked(
                statuses={one.path: Status("file", 0o755, 0, 0) for one in (*TOOLS, LOST)}
            ),
        },
        ("virt exec --domain a.com --writable -- sh -c 'chown \"$1\" \"$3\" && chmod \"$2\" \"$3\"'"
        " sh 0:0 4755 /usr/bin/passwd"),
    ),
    (
        "set-id-made",
        {"is_open": True},
        {"walked": walked(set_id=(("/home/x", Status("file", 0o4755, 0, 0)),))},
        "chmod 0700 /virtual",
    ),
    (
        "not-executable",
        {},
        {
            "entries": TOOLS,
            "walked": walked(
                statuses={
                    one.path: Status("file", 0o644 if one is TOOLS[-1] else 0o755, 0, 0)
                    for one in TOOLS
                }
            ),
        },
        ("virt exec --domain a.com --writable -- sh -c 'chown \"$1\" \"$3\" && chmod \"$2\" \"$3\"'"
        " sh 0:0 0755 /usr/bin/mv"),
    ),
    (
        "not-executable",
        {},
        {"entries": TOOLS, "walked": walked(statuses={one.path: Status("file", 0o755 if one.path != "/usr/bin/sh" else 0, 0, 0) for one in TOOLS})},
        AGAIN,
    ),
    (
        "hard-link",
        {},
        {"walked": walked(names=(Names(("/home/x",), 2, is_stored=False),))},
        ("virt exec --domain a.com --writable -- sh -c 'cp -p -- \"$1\" \"$1.own\" &&"
        " mv -f -- \"$1.own\" \"$1\"' sh /home/x"),
    ),
    (
        "hard-link",
        {},
        {"walked": walked(names=(Names(("/usr/x", "/etc/x"), 3, is_stored=True),))},
        ("virt exec --domain a.com --writable -- sh -c 'cp -p -- \"$1\" \"$1.own\" &&"
        " mv -f -- \"$1.own\" \"$1\"' sh /etc/x"),
    ),
    (
        "world-writable",
        {},
        {"walked": walked(writable=(("/etc/a\n", Status("file", 0o666, 0, 0)),))},
        r"virt exec --domain a.com --writable -- chmod o-w $'/etc/a\x0a'",
    ),
    ("mount-left", {}, {"mounts": ("/virtual/a.com/proc",)}, "umount /virtual/a.com/proc"),
    ("tree-apart", {}, {"is_apart": True}, "umount /virtual/a.com"),
    (
        "pam-other",
        {},
        {"has_pam": True, "has_pam_other": False},
        ("virt exec --domain a.com -- sh -c 'mkdir -p /etc/pam.d && for t in auth account password"
        " session; do echo $t required pam_deny.so; done >/etc/pam.d/other'"),
    ),
    (
        "resolver-local",
        {},
        {"resolvers": ("127.0.0.53",)},
        ("virt exec --domain a.com -- sh -c 'for a; do echo \"nameserver $a\"; done"
        " >/etc/resolv.conf' sh 192.0.2.53"),
    ),
    ("library-old", {}, {"old": (OldFile("/usr/lib/libssl.so.3", "libssl3", "1", "2"),)}, AGAIN),
    (
        "sendmail-mode",
        {},
        {"has_submit_cf": True},
        f"""sed -i '3s/"\\(-b[sd]\\)"/"\\1", "-Am"/' {OWN.file} && {AGAIN}""",
    ),
    (
        "sendmail-mode",
        {"inetd": inetd(line(argv=("sendmail", "-bs")))},
        {"has_submit_cf": True, "manifest": Manifest()},
        r"sed -i '4s/ \(-b[sd]\)/ \1 -Am/' /etc/inetd.conf",
    ),
]  # fmt: skip


def test_nothing_is_said_of_a_good_machine() -> None:
    """No check cries without cause: shared files, links inside one tree, /dev/log mounted there."""
    names = (Names(("/usr/bin/sort",), 9, is_stored=True), Names(("/home/a", "/home/b"), 2, False))
    good = tree(walked=walked(names=names), mounts=("/virtual/a.com/dev/log",), has_pam=True)
    text = "192.0.2.1 /virtual/a.com\n192.0.2.0/24 /virtual/b.com\n"
    here = machine(
        mount=("/", ()),
        routes=(file(text),),
        inetd=inetd(line()),
        owners={"c0000201": "a.com"},
    )
    assert examined(here, good) == []


@pytest.mark.parametrize(("check", "host", "domain", "mend"), CASES)
def test_each_check_sees_what_is_wrong(
    check: str, host: dict[str, Any], domain: dict[str, Any], mend: str
) -> None:
    """One finding of that check alone, with the command that mends just that."""
    found = examined(machine(**host), tree(**domain))
    assert [(one.check, one.mend) for one in found] == [(check, mend)]
    assert all((one.what, one.cause) != ("", "") for one in found)


def test_users_of_two_domains_with_one_number_are_told() -> None:
    """Each later domain gets a range of its own; the first keeps its numbers."""
    named = Layer("command line", 'profiles = ["login"]\naddresses = ["192.0.2.2"]\n')
    second = tree(domain="b.com", layers=(Layer("profiles/login.toml", ""), named))
    far = tree(domain="c.com", uid_base=131072, people=(Person("bob", 132072, 1, "/", "", True),))
    (found,) = examined(machine(), tree(), second, far)
    assert (found.check, found.domain) == ("uid-shared", "b.com")
    assert found.mend == (
        "virt remove --keep b.com && virt create b.com -p login --ip 192.0.2.2 --uid-base auto"
    )


@pytest.mark.parametrize(
    ("layers", "command"),
    [
        ([Layer("default", 'profiles = ["base"]')], "virt create a.com"),
        ([OWN], "virt create a.com"),
        ([Layer("/x/m n.toml", "")], "virt create a.com -m '/x/m n.toml'"),
        (
            [Layer("/x.toml", ""), Layer("command line", 'link = "copy"\nprofiles = ["login"]')],
            "virt create a.com -m /x.toml -p login --link copy",
        ),
        (
            [Layer("/x.toml", ""), Layer("command line", "uid_base = 65536\n")],
            "virt create a.com -m /x.toml --uid-base 65536",
        ),
        ([OWN, Layer("chosen by virt create", "uid_base = 65536\n")], "virt create a.com"),
        (
            [*load.with_addresses([OWN, IN_PART], ("192.0.2.1", "192.0.2.9"))],  # virt ip add
            "virt create a.com -p login --ip 192.0.2.1 --ip 192.0.2.9",
        ),
        ([*load.with_addresses([OWN, IN_PART], ())], "virt create a.com -p login"),
        (
            [Layer("/etc/virttools/profiles/own.toml", ""), Layer("command line", 'profiles = ["own"]')],
            "virt create a.com -p own",
        ),
    ],
)  # fmt: skip
def test_a_domain_is_made_again_as_it_was(layers: list[Layer], command: str) -> None:
    """The options of its creation are in its record."""
    assert mending.again("virt", "a.com", layers) == f"virt remove --keep a.com && {command}"


def test_a_tree_full_of_faults_does_not_fill_the_screen() -> None:
    """Of one check, so many findings a domain."""
    many = tuple((f"/etc/{n}", FOLDER) for n in range(1000))
    assert len(examined(machine(), tree(walked=walked(writable=many)))) == checks.MOST


def test_what_is_below_a_folder_that_is_gone_is_not_told_again() -> None:
    """One finding for a whole folder; and none for what a mount covers."""
    some = (entry("/opt", type="directory"), entry("/opt/a"), entry("/opt/a/b"))
    (found,) = examined(machine(), tree(entries=(*TOOLS, *some)))
    assert found.what == "/opt is gone"
    assert found.mend == AGAIN
    covered = walked(entries=(*TOOLS, some[0]), covered=("/opt",))
    assert examined(machine(), tree(entries=(*TOOLS, *some), walked=covered)) == []


def test_every_check_is_tried_and_described() -> None:
    """The table above and virt(1) name each check, with its severity, and no other."""
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    assert {check for check, *_ in CASES} | {"uid-shared"} == set(ids)
    terms = documents.section("virt.1", "doctor").terms()
    described = [one.heading for one in terms if not one.heading.startswith("-")]
    assert described == [f"{check.id} ({check.severity})" for check in CHECKS]


def test_a_word_that_a_tenant_has_chosen_stays_one_word() -> None:
    """A shell reads it as it was, and runs nothing of it."""
    words = ["a b", "it's", "/x\x1b\"'; echo ran #", "\\'\x01", "\u00e9\x07", "\udcff\x1b"]
    line = f"printf '%s\\0' {' '.join(map(mending.quoted, words))}"
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
