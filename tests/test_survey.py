"""A survey finds all that a manifest names, or says of each missing thing where it was asked for."""

import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

from virttools.errors import HostLacks, Problem, UsageError
from virttools.host.facts import Facts, HostEntry, Kind, Why
from virttools.host.survey import survey
from virttools.manifest.model import (
    Binary,
    Etc,
    File,
    Manifest,
    Origin,
    Package,
    Template,
)

WHERE = Origin("site.toml", 7)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A small merged-usr host without libraries: its programs are shell scripts and text."""
    root = tmp_path / "host"
    for folder in ("usr/bin", "usr/sbin", "usr/lib", "usr/share/zoneinfo/Europe", "etc", "run"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    program(root / "usr/bin/dash", "not really ELF")
    (root / "usr/bin/sh").symlink_to("dash")
    for zone in ("UTC", "Europe/Paris"):
        (root / "usr/share/zoneinfo" / zone).write_text(zone)
    return root


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def file(
    source: str,
    to: str | None = None,
    *,
    mode: int | None = None,
    owner: str | None = None,
    optional: bool = False,
    line: int = 7,
) -> File:
    target = None if to is None else PurePosixPath(to)
    return File(source, target, mode, owner, None, optional, Origin("site.toml", line))


def binaries(*names: str, optional: bool = False) -> tuple[Binary, ...]:
    return tuple(Binary(name, optional, WHERE) for name in names)


def surveyed(host: Path, manifest: Manifest) -> Facts:
    return survey(manifest, root=str(host), template_text=lambda name: f"text of {name}")


def files_only(*files: File) -> Manifest:
    return Manifest(files=files)


def described(facts: Facts) -> dict[str, str]:
    """What is where, less the time zone, parent folders and old names that every survey adds."""
    return {
        str(entry.path): entry.kind.value + (f" -> {entry.target}" if entry.target else "")
        for entry in facts.entries
        if entry.why.rule not in ("etc.timezone", "parent folder", "merged /usr")
    }


def entry(facts: Facts, path: str) -> HostEntry:
    return next(found for found in facts.entries if str(found.path) == path)


def problems(host: Path, manifest: Manifest) -> Sequence[Problem]:
    with pytest.raises(HostLacks) as caught:
        surveyed(host, manifest)
    return caught.value.problems


def test_a_program_brings_its_links_its_interpreter_and_theirs(host: Path) -> None:
    """Merged /usr, alternatives and `#!` lines are followed, and each link stays one."""
    (host / "etc/alternatives").mkdir()
    (host / "etc/alternatives/edit").symlink_to("/bin/edit.real")
    (host / "usr/bin/edit").symlink_to("/etc/alternatives/edit")
    program(host / "usr/bin/edit.real", "#!/bin/sh\n")
    facts = surveyed(host, Manifest(binaries=binaries("edit")))
    assert described(facts) == {
        "/bin": "symlink -> usr/bin",
        "/etc/alternatives/edit": "symlink -> /bin/edit.real",
        "/usr/bin/dash": "file",
        "/usr/bin/edit": "symlink -> /etc/alternatives/edit",
        "/usr/bin/edit.real": "file",
        "/usr/bin/sh": "symlink -> dash",
    }
    assert entry(facts, "/usr/bin/sh").why == Why(
        "#! interpreter", PurePosixPath("/usr/bin/edit.real"), WHERE
    )
    assert entry(facts, "/usr/bin/dash").why.by == PurePosixPath("/usr/bin/sh")
    explicit = [str(found.path) for found in facts.entries if found.explicit]
    assert explicit == ["/usr/bin/edit"]


def test_env_brings_itself_and_what_it_runs(host: Path) -> None:
    """`#!/usr/bin/env tool` needs both."""
    program(host / "usr/bin/env", "env")
    program(host / "usr/sbin/tool", "tool")
    program(host / "usr/bin/script", "#!/usr/bin/env -S tool -x\n")
    found = described(surveyed(host, Manifest(binaries=binaries("script"))))
    assert sorted(found) == ["/usr/bin/env", "/usr/bin/script", "/usr/sbin/tool"]


def test_a_script_without_an_x_bit_is_just_a_file(host: Path) -> None:
    """Only what can be run is followed."""
    (host / "etc/example").write_text("#!/bin/sh\n")
    assert described(surveyed(host, files_only(file("/etc/example")))) == {"/etc/example": "file"}


def test_every_missing_thing_is_named_with_its_line_and_a_guess(host: Path) -> None:
    """All at once: programs, paths, globs, packages, interpreters, links; and what was meant."""
    (host / "etc/dangling").symlink_to("/nowhere")
    nowhere = "the links /etc/dangling -> /nowhere lead nowhere"
    program(host / "usr/bin/orphan", "#!/usr/bin/perl5\n")
    manifest = Manifest(
        binaries=binaries("dsh", "/usr/bin/none", "/etc", "orphan"),
        files=(
            file("/etc/none", line=1),
            file("/etc/none*", line=2),
            file("/etc/dangling", line=3),
        ),
        packages=(Package("nopackage", False, WHERE),),
        etc=Etc(timezone="Mars/Base"),
    )
    assert [str(problem) for problem in problems(host, manifest)] == [
        "etc.timezone: the host has no time zone Mars/Base (/usr/share/zoneinfo/Mars/Base)",
        "site.toml:1: the host has no file /etc/none",
        "site.toml:2: no file of the host matches /etc/none*",
        f"site.toml:3: the host has no file /etc/dangling: {nowhere}",
        'site.toml:7: the host has no program "dsh"; did you mean "dash"?',
        "site.toml:7: /etc is not an executable file",
        'site.toml:7: the host has no package "nopackage" installed',
        "site.toml:7: the host has no program /usr/bin/none",
        "site.toml:7: /usr/bin/orphan is run by /usr/bin/perl5, which the host does not have",
    ]


def test_what_is_optional_is_left_out_with_a_warning(host: Path) -> None:
    """An optional thing that is missing stops nothing, and is not passed over in silence."""
    manifest = Manifest(
        binaries=binaries("none", optional=True), files=(file("/etc/none", optional=True),)
    )
    assert surveyed(host, manifest).absent == (
        'site.toml:7: the host has no program "none"',
        "site.toml:7: the host has no file /etc/none",
    )


def test_a_folder_comes_with_all_below_it(host: Path) -> None:
    """Empty folders, dangling links and links to files elsewhere too; a folder's link brings no folder."""
    data = host / "etc/data"
    (data / "empty").mkdir(parents=True)
    (data / "one").write_text("1")
    (host / "etc/outside").write_text("o")
    (host / "run/big").mkdir()
    (host / "run/big/file").write_text("b")
    (data / "out").symlink_to("../outside")
    (data / "gone").symlink_to("nowhere")
    (data / "far").symlink_to("/run/big")
    assert described(surveyed(host, files_only(file("/etc/data")))) == {
        "/etc/data": "directory",
        "/etc/data/empty": "directory",
        "/etc/data/far": "symlink -> /run/big",
        "/etc/data/gone": "symlink -> nowhere",
        "/etc/data/one": "file",
        "/etc/data/out": "symlink -> ../outside",
        "/etc/outside": "file",
        "/run/big": "directory",
    }


def test_to_gives_another_place(host: Path) -> None:
    """A file is renamed, its links followed; a folder's content and a glob's matches go below."""
    (host / "etc/real").write_text("r")
    (host / "etc/link").symlink_to("real")
    (host / "etc/d").mkdir()
    (host / "etc/d/a.conf").write_text("a")
    (host / "etc/d/b.conf").symlink_to("a.conf")
    facts = surveyed(
        host,
        files_only(
            file("/etc/link", "/bin/tool"),
            file("/etc/d", "/srv/d"),
            file("/etc/d/*.conf", "/opt/x"),
        ),
    )
    assert described(facts) == {
        "/bin": "symlink -> usr/bin",
        "/opt/x/a.conf": "file",
        "/opt/x/b.conf": "file",
        "/srv/d": "directory",
        "/srv/d/a.conf": "file",
        "/srv/d/b.conf": "symlink -> a.conf",
        "/usr/bin/tool": "file",
    }
    assert entry(facts, "/usr/bin/tool").source == host / "etc/real"


def test_mode_and_owner_of_the_manifest_win_and_later_lines_add(host: Path) -> None:
    """A later layer may change what an earlier one named; folders stay passable for their readers."""
    (host / "etc/d").mkdir()
    (host / "etc/d/secret").write_text("s")
    (host / "etc/d/secret").chmod(0o644)
    facts = surveyed(
        host,
        files_only(
            file("/etc/d", mode=0o640),
            file("/etc/d/secret", owner="mail", line=8),
            file("/etc/d/secret", mode=0o600, line=9),
        ),
    )
    found = [entry(facts, path) for path in ("/etc/d", "/etc/d/secret")]
    assert [(each.mode, each.owner, each.explicit, each.why.origin.line) for each in found] == [
        (0o750, None, True, 7),
        (0o600, "mail", True, 8),
    ]


def test_set_id_bits_stay_as_the_host_has_them(host: Path) -> None:
    """The plan decides about them."""
    program(host / "usr/bin/su", "su")
    (host / "usr/bin/su").chmod(0o6755)
    assert entry(surveyed(host, Manifest(binaries=binaries("su"))), "/usr/bin/su").mode == 0o6755


def test_extended_attributes_come_along_sorted(host: Path) -> None:
    """The user's own, in order of name."""
    path = host / "etc/x"
    path.write_text("x")
    os.setxattr(path, "user.b", b"2")
    os.setxattr(path, "user.a", b"1")
    found = entry(surveyed(host, files_only(file("/etc/x"))), "/etc/x")
    assert found.xattrs == (("user.a", b"1"), ("user.b", b"2"))


def test_sockets_and_fifos_are_left_out_where_met_and_refused_where_named(host: Path) -> None:
    """Neither is opened: a fifo would make us wait."""
    os.mkfifo(host / "run/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(host / "run")
        listener.bind("sock")
    (host / "run/file").write_text("f")
    facts = surveyed(host, files_only(file("/run/*")))
    assert described(facts) == {"/run/file": "file"}
    assert len(facts.warnings) == 2
    said = "site.toml:7: /run/fifo is a fifo, and only files, folders and links are copied"
    assert [str(each) for each in problems(host, files_only(file("/run/fifo")))] == [said]


def test_a_named_device_is_refused_with_the_word_for_it() -> None:
    """The hint names the key that makes device nodes."""
    with pytest.raises(HostLacks) as caught:
        survey(files_only(file("/dev/null")), template_text=str)
    assert str(caught.value.problems[0]).endswith("; declare it under `devices`")


def test_no_link_of_a_source_root_leads_to_the_host(host: Path) -> None:
    """With a source root /etc/passwd is that root's, whatever its links say."""
    (host / "etc/passwd").write_text("root:x:0:0:\n")
    (host / "etc/x").symlink_to("../../../../../../etc/passwd")
    facts = surveyed(host, files_only(file("/etc/x")))
    assert entry(facts, "/etc/passwd").source == host / "etc/passwd"


def test_parents_have_the_hosts_modes(host: Path) -> None:
    """A private folder stays private in the tree."""
    (host / "etc/private").mkdir(mode=0o700)
    (host / "etc/private/key").write_text("k")
    facts = surveyed(host, files_only(file("/etc/private/key")))
    found = entry(facts, "/etc/private")
    assert (found.kind, found.mode, found.why.rule) == (Kind.DIRECTORY, 0o700, "parent folder")


def test_the_old_names_of_merged_folders_stay_names(host: Path) -> None:
    """Where a tree has /usr/bin it has /bin, as programs call /bin/sh; and none that lead nowhere."""
    facts = surveyed(host, Manifest(binaries=binaries("sh")))
    links = {str(each.path) for each in facts.entries if each.why.rule == "merged /usr"}
    assert links == {"/bin"}


def test_zone_servers_and_names_are_the_hosts(host: Path) -> None:
    """Behind a local stub stand the real servers; the zone is where localtime points."""
    (host / "etc/localtime").symlink_to("../usr/share/zoneinfo/Europe/Paris")
    (host / "run/systemd/resolve").mkdir(parents=True)
    stub = "nameserver 127.0.0.53\nsearch local\n"
    (host / "run/systemd/resolve/stub-resolv.conf").write_text(stub)
    real = "# real\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver bad\nsearch a b ; c\n"
    (host / "run/systemd/resolve/resolv.conf").write_text(real)
    (host / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (host / "etc/passwd").write_text(f"nobody:x:9:9::/:\nme:x:{os.getuid()}:0::/:\nbroken\n")
    facts = surveyed(host, Manifest(etc=Etc(timezone="host")))
    assert (facts.timezone, facts.nameservers, facts.search) == (
        "Europe/Paris",
        ("192.0.2.1", "fe80::1%eth0"),
        ("a", "b"),
    )
    assert facts.user_names == ((os.getuid(), "me"),)
    paths = {str(found.path) for found in facts.entries if found.kind is Kind.FILE}
    assert paths == {"/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/Europe/Paris"}


def test_a_zone_that_climbs_is_no_zone(host: Path) -> None:
    """A zone's name cannot fetch another file."""
    said = [str(each) for each in problems(host, Manifest(etc=Etc(timezone="../../etc/shadow")))]
    assert said == ["etc.timezone: cannot use time zone '../../etc/shadow': it is no zone's name"]


def test_templates_come_as_text_and_missing_ones_are_named(host: Path) -> None:
    """Those of the skeleton under etc/, less those that the plan makes itself."""
    template = Template("site/motd.j2", PurePosixPath("/etc/motd"), 0o644, "root", "root", WHERE)
    manifest = Manifest(templates=(template,), etc=Etc(skeleton=("hosts", "localtime")))
    assert surveyed(host, manifest).templates == (
        ("etc/hosts.j2", "text of etc/hosts.j2"),
        ("site/motd.j2", "text of site/motd.j2"),
    )

    def lacking(name: str) -> str:
        raise HostLacks(f"cannot read template {name}: none")

    with pytest.raises(HostLacks) as caught:
        survey(manifest, root=str(host), template_text=lacking)
    assert [str(each) for each in caught.value.problems] == [
        "etc.skeleton: cannot read template etc/hosts.j2: none",
        "site.toml:7: cannot read template site/motd.j2: none",
    ]


def test_ldd_is_not_asked_about_another_root(host: Path) -> None:
    """It would answer for this host."""
    with pytest.raises(UsageError):
        survey(Manifest(), root=str(host), resolver="ldd", template_text=str)


def test_entries_are_sorted_and_stand_in_real_folders(host: Path) -> None:
    """One entry a path, in order, and no parent of one is a link."""
    program(host / "usr/bin/a", "#!/bin/sh\n")
    facts = surveyed(host, Manifest(binaries=binaries("/bin/a", "sh"), files=(file("/lib"),)))
    paths = [str(found.path) for found in facts.entries]
    kinds = {str(found.path): found.kind for found in facts.entries}
    assert paths == sorted(set(paths))
    parents = {kinds[os.path.dirname(path)] for path in paths if os.path.dirname(path) != "/"}
    assert parents == {Kind.DIRECTORY}


def test_a_package_brings_its_files_but_not_all_below_its_folders(host: Path) -> None:
    """The list of dpkg is taken at its word; what it lists and is gone is passed over."""
    info = host / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (host / "var/lib/dpkg/status").write_text("Package: tool\nVersion: 1\n")
    (info / "tool.list").write_text("/.\n/bin\n/bin/tool\n/etc\n/etc/gone\n/usr/share/man/x\n")
    (info / "tool.md5sums").write_text(f"{'d' * 32}  bin/tool\n")
    program(host / "usr/bin/tool", "tool")
    (host / "etc/other").write_text("o")
    facts = surveyed(host, Manifest(packages=(Package("tool", False, WHERE),)))
    assert described(facts) == {
        "/bin": "symlink -> usr/bin",
        "/etc": "directory",
        "/usr/bin": "directory",
        "/usr/bin/tool": "file",
    }
    found = entry(facts, "/usr/bin/tool")
    assert (found.package, found.md5, stat.S_IMODE(found.mode)) == (
        ("tool", "1"),
        "d" * 32,
        0o755,
    )


def test_a_program_outside_path_is_offered_by_its_path(host: Path) -> None:
    """The package database knows where it is."""
    info = host / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (info / "postfix.list").write_text("/usr/lib/postfix\n/usr/lib/postfix/smtpd\n")
    (host / "usr/lib/postfix").mkdir()
    program(host / "usr/lib/postfix/smtpd", "smtpd")
    said = str(problems(host, Manifest(binaries=binaries("smtpd")))[0])
    assert said.endswith("; it has /usr/lib/postfix/smtpd: name it by that path")
