"""One manifest file becomes values with their lines, or the list of all that is wrong in it."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import ManifestError
from virttools.manifest import keys, parse
from virttools.manifest.model import (
    Binary,
    Daemon,
    Device,
    Directory,
    File,
    Group,
    Hook,
    Isolation,
    Layer,
    LinkMode,
    Origin,
    Package,
    Probe,
    ProbeKind,
    Rate,
    ResourceLimit,
    Restart,
    Service,
    Symlink,
    Template,
    TimeSpan,
    User,
)

EVERY_KEY = (Path(__file__).parent / "manifests" / "every-key.toml").read_text()


def at(line: int) -> Origin:
    return Origin("m.toml", line)


def faults(text: str) -> list[str]:
    """Every problem of a manifest, without the name of the file."""
    with pytest.raises(ManifestError) as caught:
        parse.parse(Layer("m.toml", text))
    return [str(problem).removeprefix("m.toml:") for problem in caught.value.problems]


def values(text: str, key: str) -> list[object]:
    return [item.value for item in parse.parse(Layer("m.toml", text)).items(key)]


def test_every_key_is_read() -> None:
    """Each key of DESIGN 4 becomes the value of the model, with the line of the item itself."""
    root = {"owner": "root", "group": "root"}
    parsed = parse.parse(Layer("m.toml", EVERY_KEY))
    found = {name: [item.value for item in entries.items] for name, entries in parsed.lists}
    assert found == {
        "profiles": ["base", "login"],
        "addresses": ["192.0.2.1", "2001:db8::1"],
        "binaries": [
            Binary("bash", optional=False, origin=at(7)),
            Binary("/usr/bin/env", optional=False, origin=at(8), packages=("coreutils",)),
            Binary("nano", optional=True, origin=at(9)),
        ],
        "packages": [
            Package("coreutils", optional=False, origin=at(11)),
            Package("x:i386", optional=True, origin=at(11)),
        ],
        "files": [
            File("/etc/ssl", None, None, None, None, optional=False, origin=at(13)),
            File(
                "/usr/share/zoneinfo/Europe/*",
                None,
                None,
                None,
                None,
                optional=False,
                origin=at(14),
            ),
            File(
                "/srv/a",
                PurePosixPath("/usr/share/a"),
                0o644,
                **root,
                optional=True,
                origin=at(15),
            ),
        ],
        "directories": [
            Directory(PurePosixPath("/var/log"), 0o755, **root, origin=at(17)),
            Directory(PurePosixPath("/tmp"), 0o1777, "bob", "www", at(17)),
        ],
        "symlinks": [Symlink(PurePosixPath("/usr/tmp"), "../tmp", at(18))],
        "devices": [
            Device(PurePosixPath("/dev/null"), "c", 1, 3, 0o666, **root, origin=at(19)),
            Device(PurePosixPath("/dev/loop0"), "b", 7, 0, 0o660, "root", "disk", at(19)),
        ],
        "templates": [
            Template("motd.j2", PurePosixPath("/etc/motd"), 0o644, **root, origin=at(20))
        ],
        "groups": [Group("www", 80, ("bob",), at(21))],
        "setuid": [PurePosixPath("/usr/bin/passwd")],
        "probes": [
            Probe(
                "www",
                ProbeKind.HTTP,
                port=80,
                login=False,
                anonymous=True,
                path="/index.html",
                expect="works",
                origin=at(117),
            )
        ],
        "hooks": [Hook("built", ("/usr/local/sbin/site-hook", "arg"), at(23))],
        "services": [
            Service(
                "ftp",
                21,
                "tcp",
                "root",
                "/usr/sbin/vsftpd",
                ("/etc/vsftpd.conf",),
                Isolation.CHROOT,
                None,
                at(25),
            ),
            Service(
                "sweep",
                None,
                "tcp",
                "root",
                "/usr/bin/sweep",
                (),
                Isolation.NAMESPACE,
                5400,
                at(32),
            ),
            Service(
                "www",
                80,
                "tcp",
                "bob",
                "/usr/sbin/httpd",
                (),
                Isolation.NAMESPACE,
                None,
                at(37),
                groups=("www",),
                bind=("192.0.2.1",),
                backlog=64,
                instances=40,
                per_source=4,
                cps=Rate(50, 10),
                only_from=("10.1.0.0/16", "2001:db8::/32"),
                no_access=("10.1.2.3", "10.9.0.0/16"),
                access_times=(TimeSpan(480, 1110), TimeSpan(1320, 360)),
                log_on_success=("PID", "HOST", "EXIT", "DURATION"),
                log_on_failure=(),
                banner=PurePosixPath("/etc/issue.net"),
                timeout=600,
                proxy_protocol=("192.0.2.9",),
                nice=5,
                zygote=True,
                rlimits=(
                    ResourceLimit("files", 256),
                    ResourceLimit("as", 512 << 20),
                    ResourceLimit("core", 0),
                    ResourceLimit("nproc", None),
                ),
            ),
            Service(
                "tftp",
                69,
                "udp",
                "root",
                "/usr/sbin/tftpd",
                (),
                Isolation.NAMESPACE,
                None,
                at(59),
                wait=True,
            ),
        ],
        "daemons": [
            Daemon(
                "web",
                "/usr/sbin/nginx",
                ("-g", "daemon off;"),
                "bob",
                ("www",),
                Isolation.CHROOT,
                Restart.ON_FAILURE,
                300,
                "SIGQUIT",
                30,
                (8080, 8443),
                5,
                (ResourceLimit("files", 1024),),
                at(66),
            )
        ],
        "users": [
            User(
                "bob",
                1000,
                None,
                ("www",),
                "",
                None,
                "/bin/bash",
                "$6$salt$hash",
                create_home=True,
                origin=at(81),
            )
        ],
        "etc.skeleton": ["hosts", "passwd"],
        "etc.nameservers": ["192.0.2.53"],
        "etc.search": ["domain1.com"],
        "scrub.operations": ["default", "-logfiles", "+x"],
        "scrub.keep": ["/etc/ssl/private/shop.pem"],
        "scrub.own": ["/etc/app/*.key"],
        "image.env": ["LANG=C.UTF-8"],
        "image.ports": ["80/tcp", "53/udp"],
        "image.volumes": [PurePosixPath("/var/www")],
        "image.labels": ["org.example.tier=web"],
        "image.annotations": ["org.opencontainers.image.title=A page"],
    }
    scalars = {name: (item.value, item.origin.line) for name, item in parsed.scalars}
    assert scalars == {
        "link": (LinkMode.COPY, 3),
        "devlog": ("shared", 4),
        "uid_base": (100000, 5),
        "etc.hostname": ("www", 89),
        "etc.timezone": ("Europe/Paris", 90),
        "etc.motd": ("two\nlines", 93),
        "home.layout": ("letters", 96),
        "home.mode": (0o700, 97),
        "image.entrypoint": (("/usr/sbin/httpd", "-f", "-f"), 105),
        "image.cmd": (("-h", "/var/www"), 106),
        "image.user": ("bob:www", 108),
        "image.workdir": (PurePosixPath("/var/www"), 109),
        "image.stop_signal": ("SIGQUIT", 114),
        "image.layers": ("profile", 115),
    }
    assert {*found, *scalars} == {*keys.plain(), *parsed_lists()}


def parsed_lists() -> set[str]:
    return {name for name, key in keys.TOP.items() if isinstance(key, keys.Items)}


@pytest.mark.parametrize(
    "text",
    [
        '[[users]]\nname = "bob"\ngroups = ["www"]\n',
        'users = [{ name = "bob", groups = ["www"] }]\n',
        "[[users]]\nname = '''bob'''\ngroups = [\n'www',\n]\n",
    ],
)
def test_the_ways_to_write_a_table_mean_the_same(text: str) -> None:
    """[[users]] and a list of inline tables are one thing."""
    bob = User(
        "bob", None, None, ("www",), "", None, "/bin/bash", "!", create_home=True, origin=at(1)
    )
    assert values(text, "users") == [bob]


@pytest.mark.parametrize("text", ['etc.motd = "x"', '[etc]\nmotd = "x"', 'etc = { motd = "x" }'])
def test_the_ways_to_write_a_section_mean_the_same(text: str) -> None:
    """Dotted keys, headers and inline tables are one thing."""
    parsed = parse.parse(Layer("m.toml", text))
    assert [(name, item.value) for name, item in parsed.scalars] == [("etc.motd", "x")]


PATH = "allowed: an absolute path without .. and control characters"
SOURCE = f"{PATH}, or a pattern of such paths"
MODE = "allowed: a mode in octal, 0o0 to 0o7777"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "uid_base = true",
            "uid_base is true, allowed: a whole number from 0 to 4294967294, or auto",
        ),
        (
            "uid_base = -1",
            "uid_base is -1, out of range, allowed: a whole number from 0 to 4294967294, or auto",
        ),
        (
            "uid_base = 1.0",
            "uid_base is 1.0, allowed: a whole number from 0 to 4294967294, or auto",
        ),
        (
            'uid_base = "atuo"',
            'uid_base is "atuo", allowed: a whole number from 0 to 4294967294, or auto, did you mean "auto"?',
        ),
        (
            'link = "harrd"',
            'link is "harrd", allowed: auto, reflink, hard, copy, did you mean "hard"?',
        ),
        ("devlog = 1979-05-27", "devlog is 1979-05-27, allowed: own, shared"),
        ('binaries = "ls"', 'binaries is "ls", allowed: a list, did you mean ["ls"]?'),
        ('users = { name = "x" }', "users is a table, allowed: a list, did you mean [[users]]?"),
        ("etc = 3", "etc is 3, allowed: a table, [etc]"),
        ("home.mode = 750", f"home.mode is 750, not written in octal, {MODE}, did you mean 0o750?"),
        ("home.mode = 493", f"home.mode is 493, not written in octal, {MODE}, did you mean 0o755?"),
        ('home.mode = "0750"', f'home.mode is "0750", {MODE}, did you mean 0o750?'),
        ("home.mode = 0o10000", f"home.mode is 0o10000, more than twelve bits, {MODE}"),
        ("home.mode = -1", f"home.mode is -1, negative, {MODE}"),
        (
            'setuid = ["bin/su"]',
            f'setuid[0] is "bin/su", a relative path, {PATH}, did you mean "/bin/su"?',
        ),
        ('setuid = ["/"]', f'setuid[0] is "/", the top of the tree itself, {PATH}'),
        ('files = ["/a/../b"]', f'files[0] is "/a/../b", it holds .., {SOURCE}'),
        ('files = ["/a\\nb"]', f'files[0] is "/a\\nb", it holds a control character, {SOURCE}'),
        (
            'files = ["/a\\u0000"]',
            f'files[0] is "/a\\u0000", it holds a control character, {SOURCE}',
        ),
        (
            'files = [{ from = "/a*", to = "/b" }]',
            "files[0] has a pattern in from, which many files may match, and one path in to",
        ),
        (
            'devices = ["nul"]',
            'devices[0] is "nul", allowed: null, zero, full, random, urandom, tty or a table with path, type, major, minor, mode, owner, group, did you mean "null"?',
        ),
        (
            'devices = [{ path = "/dev/x", type = "p", major = 1, minor = 1 }]',
            'devices[0].type is "p", allowed: c, b',
        ),
        (
            "symlinks = [{ path = '/x' }]",
            "symlinks[0] lacks the key to, allowed: a path, absolute inside the tree or relative to the link",
        ),
        (
            'groups = [{ name = "a:b" }]',
            'groups[0].name is "a:b", allowed: a letter or _, then letters, digits, _ and -, at most 32 characters',
        ),
        (
            'users = [{ name = "bob", gecos = "Bob\\n" }]',
            'users[0].gecos is "Bob\\n", it holds a control character, allowed: text without colons and control characters',
        ),
        (
            'users = [{ name = "bob", shell = "/bin:sh" }]',
            'users[0].shell is "/bin:sh", passwd(5) has no way to write a colon, allowed: an absolute path without colons, .. and control characters',
        ),
        (
            'addresses = ["192.0.2.1", "::ffff:192.0.2.1"]',
            'addresses has "192.0.2.1" twice, first on line 1, allowed: once',
        ),
        (
            'users = [{ name = "a", uid = 5 }, { name = "b", uid = 5 }]',
            "users has the uid 5 twice, first on line 1, allowed: once",
        ),
        (
            'groups = [{ name = "a", gid = 5 }, { name = "b", gid = 5 }]',
            "groups has the gid 5 twice, first on line 1, allowed: once",
        ),
        (
            'users = [{ name = "a" }, { name = "a" }]',
            'users has "a" twice, first on line 1, allowed: once',
        ),
        (
            'services = [{ name = "x", program = "/x", port = 0 }]',
            "services[0].port is 0, out of range, allowed: a whole number from 1 to 65535",
        ),
        (
            'services = [{ name = "x", program = "/x", every = "often" }]',
            'services[0].every is "often", allowed: a time of 1 s to 366 d such as "30s", "15m", "1h" or "1d12h"',
        ),
        (
            'services = [{ name = "x", program = "/x" }]',
            "services[0] needs a port to answer on, or every to be run periodically",
        ),
        (
            'services = [{ name = "x", program = "/x", every = "1h", backlog = 5, cps = "1 1" }]',
            "services[0] has every, and then no connections for backlog, cps",
        ),
        (
            'services = [{ name = "x", program = "/x", port = 9, wait = true, per_source = 5 }]',
            "services[0] waits, so its program meets the clients itself: no per_source",
        ),
        (
            'services = [{ name = "x", program = "/x", port = 9, cps = "fast" }]',
            'services[0].cps is "fast", allowed: connections a second and seconds to pause, as in "50 10"',
        ),
        (
            'services = [{ name = "x", program = "/x", port = 9, only_from = ["10.1.2.3/16"] }]',
            'services[0].only_from[0] is "10.1.2.3/16", it has bits beyond its mask, allowed: an IPv4 or IPv6 address or network, did you mean "10.1.0.0/16"?',
        ),
        (
            'services = [{ name = "x", program = "/x", port = 9, access_times = ["8:00-25:00"] }]',
            'services[0].access_times[0] is "8:00-25:00", it is no time, allowed: hours and minutes as in "8:00-18:30"',
        ),
        (
            'services = [{ name = "x", program = "/x", port = 9, rlimits = ["file=3"] }]',
            'services[0].rlimits[0] is "file=3", allowed: as, core, cpu, data, files, fsize, nproc, rss, stack, with "=" and a number (K, M, G) or unlimited, as in "files=256", did you mean "files"?',
        ),
        (
            'hooks = [{ phase = "built", run = ["hook"] }]',
            "hooks[0] must run a program by its absolute path; no shell looks it up",
        ),
        (
            'scrub.operations = "default,-x y"',
            'scrub.operations is "-x y", allowed: an operation or a set of them, as in "default", "-x", "+y"',
        ),
        (
            'profiles = ["../x"]',
            'profiles[0] is "../x", allowed: the name of a profile, not a path',
        ),
        (
            'etc.hostname = "a_b"',
            'etc.hostname is "a_b", host names have no underscore (RFC 1123), allowed: a host name, did you mean "a-b"?',
        ),
    ],
)
def test_a_fault_says_what_is_wrong_and_what_is_allowed(text: str, fault: str) -> None:
    """One line per fault, with a hint where the meaning can be guessed."""
    assert faults(text) == [f"1: {fault}"]


@pytest.mark.parametrize(
    ("text", "start", "hint"),
    [
        ("binarys = []", "unknown key binarys, allowed: profiles, ", ', did you mean "binaries"?'),
        (
            'hostname = "x"',
            "unknown key hostname, allowed: profiles, ",
            "did you mean etc.hostname?",
        ),
        (
            "[etc]\nmodt = ''",
            "unknown key modt in etc, allowed: skeleton, ",
            ', did you mean "motd"?',
        ),
        (
            "files = [{ from = '/x', moed = 1 }]",
            "unknown key moed in files[0], allowed: from, to, mode, owner, group, optional",
            ', did you mean "mode"?',
        ),
        ('"a\\nb" = 1', 'unknown key "a\\nb", allowed: profiles, ', "image"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_hint(text: str, start: str, hint: str) -> None:
    """A misspelt key is never ignored."""
    (fault,) = faults(text)
    assert fault.partition(" ")[2].startswith(start)
    assert fault.endswith(hint)


def test_everything_wrong_is_reported_at_once_by_line() -> None:
    """No second run is needed to see the second fault, even in an item with others."""
    text = 'lnk = "x"\nuid_base = "0"\n[[users]]\nuid = 70\n[[users]]\nname = "b b"\nuid = true\n'
    assert [fault.partition(":")[0] for fault in faults(text)] == ["1", "2", "3", "6", "7"]


def test_a_faulty_item_still_counts_as_a_name() -> None:
    """A name given twice is found although one of its items has a fault of its own."""
    found = faults('[[users]]\nname = "bob"\nuid = true\n[[users]]\nname = "bob"\n')
    assert [fault.partition(",")[0] for fault in found] == [
        "3: users[0].uid is true",
        '4: users has "bob" twice',
    ]


@pytest.mark.parametrize(
    "password", ["!", "*", "!!", "!*", "$y$j9T$salt$h.ash/", "!$6$a$b", "$6$rounds=5000$s$h"]
)
def test_a_password_is_a_crypt_field(password: str) -> None:
    """Locks and hashes are taken, locked hashes too."""
    assert values(f"users = [{{ name = 'bob', password = '{password}' }}]", "users")


@pytest.mark.parametrize(
    "password", ["", "secret", "abcdefghijklm", "$6$", "$6$a:b", "x y", "$6$a\\nb"]
)
def test_a_password_in_clear_is_refused_and_not_repeated(password: str) -> None:
    """Neither a clear password (which could look like a DES hash) nor none; messages do not leak it."""
    (fault,) = faults(f'users = [{{ name = "bob", password = "{password}" }}]')
    assert fault.startswith("1: users[0].password is a text, allowed: a crypt(5) field")
    assert not password or f'"{password}"' not in fault


@pytest.mark.parametrize("name", ["bob", "_apt", "Debian-exim", "web$", "a" * 32])
def test_the_names_that_debian_gives_accounts_are_taken(name: str) -> None:
    """adduser.conf(5), NAME_REGEX and SYS_NAME_REGEX."""
    assert values(f'users = [{{ name = "{name}" }}]', "users")


@pytest.mark.parametrize(
    "name", ["", "0bob", "-bob", "bob smith", "bob/..", "bøb", "a" * 33, "root:x", "b$b"]
)
def test_other_names_of_accounts_are_refused(name: str) -> None:
    """Nothing that could be an option, a path, a number or a second field of passwd(5)."""
    assert len(faults(f'users = [{{ name = "{name}" }}]')) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = 1\nb = = 2\n", "2: invalid value (column 5)"),
        ("a = 1\na = 2\n", "2: cannot overwrite a value (column 6)"),
        ('a = 1\nb = "x', "2: unterminated string (at the end)"),
        (
            "home.mode = 0755",
            "1: expected newline or end of document after a statement (column 14), did you mean 0o755?",
        ),
        ("\n" + "a." * 101 + "a = 1", "2: a key has more than 100 parts (column 1)"),
        ("a = " + "[" * 100_000, " values are nested too deeply"),
        ("a = " + "1" * 5_000, " a number has too many digits"),
    ],
)
def test_a_fault_of_syntax_has_its_line(text: str, fault: str) -> None:
    """What tomllib says is given as file and line, whatever the text does to it."""
    assert faults(text) == [fault]


def test_a_number_beyond_all_bounds_is_shown_short() -> None:
    """Hexadecimal numbers have no limit of digits in Python, their decimal text has."""
    (fault,) = faults("uid_base = 0x" + "f" * 10_000)
    assert len(fault) < 200


def test_an_empty_list_resets() -> None:
    """A list without items is remembered as a wish to forget earlier ones."""
    parsed = parse.parse(Layer("m.toml", "binaries = []\nsetuid = ['/x']\n"))
    assert [(name, entries.resets) for name, entries in parsed.lists] == [
        ("binaries", True),
        ("setuid", False),
    ]


def test_options_have_no_line() -> None:
    """Line 0 of the layer that stands for options."""
    parsed = parse.parse(Layer("command line", 'addresses = ["192.0.2.1"]'))
    assert parsed.items("addresses")[0].origin == Origin("command line", 0)


WORDS = st.text(max_size=8) | st.sampled_from(
    ["/", "/..", "//x", "a:b", "$6$a$b", "root", "1h", "0755"]
)
SCALARS = WORDS | st.integers() | st.booleans() | st.floats() | st.dates()


def toml(value: object) -> str:
    """Any value as TOML text."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            escaped = "".join(
                f"\\U{ord(char):08x}" for char in value if not "\ud800" <= char <= "\udfff"
            )
            return f'"{escaped}"'
        case list():
            return "[" + ", ".join(toml(item) for item in value) + "]"
        case dict():
            return (
                "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
            )
        case _:
            return str(value)


def tables(names: list[str]) -> st.SearchStrategy[object]:
    return st.dictionaries(
        st.sampled_from(names), SCALARS | st.lists(SCALARS, max_size=2), max_size=4
    )


@given(st.data())
def test_no_value_of_any_key_brings_the_parser_down(data: st.DataObject) -> None:
    """Whatever stands at a key, it is taken or refused with a line, never a traceback."""
    name = data.draw(st.sampled_from([*keys.TOP, "other"]))
    key = keys.TOP.get(name)
    inner = [*getattr(key, "fields", ()), *getattr(key, "keys", ()), "other"]
    value = data.draw(SCALARS | st.lists(SCALARS | tables(inner), max_size=3) | tables(inner))
    _, problems = parse.read(Layer("m.toml", f"\n{name} = {toml(value)}\n"))
    assert all(problem.line == 2 and problem.message.isprintable() for problem in problems)
