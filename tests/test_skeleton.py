"""A tree's own files: what the templates say for a domain, and that no value can break out of its line."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import BadName, ManifestError
from virttools.host import templates
from virttools.host.facts import Facts, HostEntry, Kind, Why
from virttools.manifest.keys import SKELETON
from virttools.manifest.load import reload
from virttools.manifest.model import Etc, Layer, Manifest, Origin
from virttools.tree import skeleton
from virttools.tree.accounts import number
from virttools.tree.plan import prepare

HERE = Origin("site.toml", 1)
ALL = f"[etc]\nskeleton = {list(SKELETON)}\n"


def manifest(text: str = "", etc: str = "") -> Manifest:
    """A manifest given as TOML; `etc` is what [etc] says besides the whole skeleton."""
    return reload((Layer("site.toml", f"{text}\n{ALL}{etc}"),))


def facts(wanted: Manifest, **more: str) -> Facts:
    """What a host with the shipped templates says; `more` are templates by name, _ for /."""
    names = {template.source for template in wanted.templates}
    names |= {f"etc/{name}.j2" for name in wanted.etc.skeleton if name != "localtime"}
    texts = {name: more[name] if name in more else templates.text(name) for name in names}
    return Facts(
        entries=(),
        timezone="Europe/Paris",
        nameservers=("192.0.2.53",),
        search=("the-hosts-own.example",),
        templates=tuple(sorted(texts.items())),
    )


def written(wanted: Manifest, domain: str = "domain1.com") -> dict[str, str]:
    """Path to text."""
    found = skeleton.files(domain, wanted, facts(wanted))
    return {file.path: file.content.decode() for file in found}


def problems(wanted: Manifest) -> str:
    """What is told of templates that cannot be rendered."""
    with pytest.raises(ManifestError) as caught:
        skeleton.files("domain1.com", wanted, facts(wanted))
    return "\n".join(str(problem) for problem in caught.value.problems)


def entry(path: str, kind: Kind = Kind.FILE) -> HostEntry:
    """Something of the host."""
    return HostEntry(
        path=PurePosixPath(path),
        kind=kind,
        source=Path(path),
        mode=0o644,
        uid=0,
        gid=0,
        why=Why("files", None, HERE),
    )


def test_every_name_of_the_skeleton_has_a_template() -> None:
    """All are written to /etc, except the zone, which the survey brings."""
    assert set(written(manifest())) == {f"/etc/{name}" for name in SKELETON if name != "localtime"}


def test_hosts_has_every_address_under_the_domains_names() -> None:
    """The canonical name stands first: it is what `hostname -f` says."""
    text = written(manifest('addresses = ["192.0.2.1", "2001:db8::1"]'))["/etc/hosts"]
    assert text.splitlines()[-2:] == [
        "192.0.2.1 domain1.com domain1",
        "2001:db8::1 domain1.com domain1",
    ]
    assert text.startswith("127.0.0.1 localhost\n")


def test_a_domain_without_address_is_itself_on_the_loopback() -> None:
    """127.0.1.1, as Debian has it for machines without a fixed address."""
    assert written(manifest())["/etc/hosts"].splitlines()[-1] == "127.0.1.1 domain1.com domain1"


@pytest.mark.parametrize(
    ("asked", "short", "full"),
    [
        ("", "domain1", "domain1.com"),
        ('hostname = "www"', "www", "www.domain1.com"),
        ('hostname = "shop.other.org"', "shop", "shop.other.org"),
    ],
)
def test_the_host_name_is_the_domains_or_the_one_asked_for(
    asked: str, short: str, full: str
) -> None:
    """The file hostname has the short form, HOSTNAME the full one, hosts both and the domain."""
    found = written(manifest(etc=asked))
    assert found["/etc/hostname"] == f"{short}\n"
    assert found["/etc/HOSTNAME"] == f"{full}\n"
    names = found["/etc/hosts"].splitlines()[-1].split()[1:]
    assert names[0] == full
    assert {full, "domain1.com", short} == set(names)


def test_accounts_are_the_declared_ones_and_root() -> None:
    """Locked unless a hash is declared; shadow has no day, so that two builds are equal."""
    wanted = manifest(
        """
        users = [{ name = "bob", gecos = "Bob", groups = ["www"], password = "$y$j9T$abc$def" }]
        groups = [{ name = "www", gid = 80 }, { name = "shadow", gid = 42 }]
        """
    )
    found = written(wanted)
    assert found["/etc/passwd"] == (
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000:Bob:/home/bob:/bin/bash\n"
    )
    assert found["/etc/group"] == "root:x:0:\nshadow:x:42:\nwww:x:80:bob\nbob:x:1000:\n"
    assert found["/etc/shadow"] == ("root:*::0:99999:7:::\nbob:$y$j9T$abc$def::0:99999:7:::\n")
    assert found["/etc/gshadow"] == "root:!::\nshadow:!::\nwww:!::bob\nbob:!::\n"


def test_only_root_and_the_group_shadow_read_hashes() -> None:
    """0640 root:shadow, and root:root where a tree has no such group."""
    having = manifest('groups = [{ name = "shadow", gid = 42 }]')
    for wanted, group in ((having, "shadow"), (manifest(), "root")):
        found = {it.path: it for it in skeleton.files("domain1.com", wanted, facts(wanted))}
        for path in ("/etc/shadow", "/etc/gshadow"):
            assert (found[path].mode, found[path].owner, found[path].group) == (
                0o640,
                "root",
                group,
            )
        assert found["/etc/passwd"].mode == 0o644


def test_resolv_conf_has_the_hosts_servers_and_never_its_search_list() -> None:
    """The host's own domain is nobody's business; a tree completes names with its own."""
    assert written(manifest())["/etc/resolv.conf"] == (
        "nameserver 192.0.2.53\nsearch domain1.com\n"
    )
    asked = 'nameservers = ["192.0.2.99"]\nsearch = ["a.example", "b.example"]'
    assert written(manifest(etc=asked))["/etc/resolv.conf"] == (
        "nameserver 192.0.2.99\nsearch a.example b.example\n"
    )


def test_the_zone_is_the_hosts_where_the_manifest_says_so() -> None:
    """/etc/timezone names it, and /etc/localtime points to it where the host has the file."""
    host = manifest(etc='timezone = "host"')
    assert written(host)["/etc/timezone"] == "Europe/Paris\n"
    assert written(manifest())["/etc/timezone"] == "UTC\n"
    known = replace(facts(host), entries=(entry("/usr/share/zoneinfo/Europe/Paris"),))
    (link,) = skeleton.links(host, known)
    assert (str(link.path), link.target) == ("/etc/localtime", "/usr/share/zoneinfo/Europe/Paris")
    assert skeleton.links(host, facts(host)) == ()


def test_the_message_of_the_day_ends_its_line() -> None:
    """Whether the manifest's text does or not; the domain greets where there is none."""
    assert written(manifest())["/etc/motd"] == "Welcome to domain1.com.\n"
    for text in ("hello", "hello\\n"):
        assert written(manifest(etc=f'motd = "{text}"'))["/etc/motd"] == "hello\n"
    assert written(manifest(etc='motd = "{{ domain }}"'))["/etc/motd"] == "{{ domain }}\n"


def test_shells_are_those_that_the_tree_has() -> None:
    """By both paths, as merged /usr has them; other programs are no login shells."""
    wanted = manifest()
    found = replace(facts(wanted), entries=(entry("/usr/bin/bash"), entry("/usr/bin/ls")))
    (shells,) = [
        it.content.decode()
        for it in skeleton.files("domain1.com", wanted, found)
        if it.path == "/etc/shells"
    ]
    assert shells.splitlines()[1:] == ["/bin/bash", "/usr/bin/bash"]


def test_new_accounts_get_numbers_of_the_domains_own_range() -> None:
    """What useradd makes inside a tree with a uid_base must stay in it."""
    text = written(manifest("uid_base = 200000"))["/etc/login.defs"]
    assert "UID_MIN 201000\n" in text
    assert "SYS_GID_MAX 200999\n" in text


def test_a_template_of_the_manifest_takes_the_place_of_a_skeleton_file() -> None:
    """With its own rights, and the line that asked for it."""
    wanted = manifest('templates = [{ from = "etc/motd.j2", to = "/etc/hosts", mode = 0o600 }]')
    (hosts,) = [
        it for it in skeleton.files("domain1.com", wanted, facts(wanted)) if it.path == "/etc/hosts"
    ]
    assert (hosts.content, hosts.mode, hosts.source, str(hosts.origin)) == (
        b"Welcome to domain1.com.\n",
        0o600,
        "etc/motd.j2",
        "site.toml:1",
    )


def test_homes_are_filled_from_skel() -> None:
    """Templates, folders and host files below /etc/skel, each owned by the user."""
    wanted = manifest(
        """
        users = [{ name = "bob" }, { name = "ftp", create_home = false }]
        directories = ["/etc/skel", { path = "/etc/skel/bin", mode = 0o700 }]
        templates = [{ from = "etc/skel/bashrc.j2", to = "/etc/skel/.bashrc", mode = 0o600 }]
        home = { mode = 0o711 }
        """
    )
    accounts = number(wanted)
    homes = skeleton.homes(wanted, accounts)
    assert [(it.path, it.mode, it.uid, it.gid) for it in homes] == [
        ("/home/bob", 0o711, 1000, 1000),
        ("/home/bob/bin", 0o700, 1000, 1000),
    ]
    found = {it.path: it for it in skeleton.files("domain1.com", wanted, facts(wanted))}
    own, model = found["/home/bob/.bashrc"], found["/etc/skel/.bashrc"]
    assert own.content == model.content
    assert (own.mode, own.owner, own.group) == (0o600, "bob", "bob")
    assert not any(path.startswith("/home/ftp") for path in found)
    brought = replace(facts(wanted), entries=(entry("/etc/skel/.vimrc"), entry("/etc/skel")))
    (vimrc,) = skeleton.copies(accounts, brought)
    assert (str(vimrc.path), str(vimrc.source)) == ("/home/bob/.vimrc", "/etc/skel/.vimrc")
    assert (vimrc.owner, vimrc.group, str(vimrc.why.by)) == ("bob", "bob", "/etc/skel/.vimrc")


def test_host_files_in_skel_are_planned_into_homes() -> None:
    """Folders, files and links alike, and all of them the user's own, or it could not use them."""
    wanted = manifest('users = [{ name = "bob" }]')
    brought = (
        entry("/etc/skel/.config", Kind.DIRECTORY),
        entry("/etc/skel/.config/rc"),
        replace(entry("/etc/skel/rc", Kind.SYMLINK), target=".config/rc"),
    )
    plan = prepare(wanted, replace(facts(wanted), entries=brought)).plan("domain1.com", ())
    lines = [str(action) for action in plan.actions if "home/bob" in str(action)]
    assert sorted(lines) == [
        "copy     0644 1000:1000 /etc/skel/.config/rc -> /home/bob/.config/rc",
        "mkdir    0644 1000:1000 /home/bob/.config",
        "mkdir    0750 1000:1000 /home/bob",
        "symlink  /home/bob/rc -> .config/rc",
    ]


def test_letters_make_a_folder_for_each() -> None:
    """The HOWTO's /home/a to /home/z, root's own, before the homes in them."""
    wanted = manifest('users = [{ name = "crc", group = "root" }]\nhome = { layout = "letters" }')
    paths = [it.path for it in skeleton.homes(wanted, number(wanted))]
    assert len(paths) == 27
    assert paths[:4] == ["/home/a", "/home/b", "/home/c", "/home/c/crc"]


def test_a_mistake_in_a_template_is_told_with_its_line(tmp_path: Path) -> None:
    """All templates at fault at once: what is undefined, with what was meant, and bad syntax."""
    one, two = tmp_path / "one.j2", tmp_path / "two.j2"
    one.write_text("hello\n{{ domian }}\n")
    two.write_text("hello\n\n{% if %}\n")
    wanted = manifest(
        f'templates = [{{ from = "{one}", to = "/etc/a" }}, {{ from = "{two}", to = "/etc/b" }}]'
    )
    assert problems(wanted).splitlines() == [
        f"{one}:2: 'domian' is undefined, did you mean \"domain\"?",
        f"{two}:3: Expected an expression, got 'end of statement block'",
    ]


@given(st.text(max_size=40).filter(lambda text: not text.isalnum()))
def test_no_domain_name_writes_lines_of_its_own(name: str) -> None:
    """What is no name is refused; what is one stands in its line and nowhere else."""
    wanted = manifest()
    try:
        found = skeleton.files(name, wanted, facts(wanted))
    except BadName:
        return
    hosts = next(it.content.decode() for it in found if it.path == "/etc/hosts")
    assert hosts.count("\n") == written(wanted)["/etc/hosts"].count("\n")


@pytest.mark.parametrize(
    "name", ["", "a b", "a\nb", "a:b", "a;b", "$(id)", "a'b", "{{ x }}", "A.com", "-a", "a/b"]
)
def test_what_is_no_domain_name_is_refused(name: str) -> None:
    """Even if a caller forgot to check: such text would end up in shell scripts of the tree."""
    with pytest.raises(BadName):
        skeleton.files(name, manifest(), facts(manifest()))


@pytest.mark.parametrize("value", ["a:b", "a\nroot::0:0:::", "a\x00b"])
def test_no_value_ends_its_field_of_passwd(value: str) -> None:
    """The parser refuses these too; a template must not be the one to trust it."""
    wanted = manifest('users = [{ name = "bob" }]')
    bad = replace(wanted, users=(replace(wanted.users[0], gecos=value),))
    assert "cannot be a field" in problems(bad)


@pytest.mark.parametrize("value", ["", "a b", "a\nnameserver 6.6.6.6", "#a"])
def test_no_value_is_more_than_a_word_of_resolv_conf(value: str) -> None:
    """One search domain is one word of one line."""
    bad = replace(manifest(), etc=Etc(skeleton=("resolv.conf",), search=(value,)))
    assert "cannot be one word" in problems(bad)


def test_domains_of_one_manifest_do_not_mix() -> None:
    """What is kept from one domain to the next holds no name of it."""
    wanted = manifest()
    known = facts(wanted)
    first = skeleton.files("domain1.com", wanted, known)
    second = skeleton.files("domain2.com", replace(wanted, addresses=("192.0.2.2",)), known)
    assert not any(b"domain1" in file.content for file in second)
    assert skeleton.files("domain1.com", wanted, known) == first
