"""inetd.conf, held against what the real openbsd-inetd serves of the same text."""

import contextlib
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from virttools.errors import ConfigError
from virttools.serve import inetdconf
from virttools.serve.inetdconf import Bind, Entry, Kind, Virtuald

PORTS = inetdconf.read_services(
    "ftp 21/tcp fsp # files\n# no 1/tcp\npop3\t110/tcp  pop-3\npop3 9/tcp\necho 7/tcp\n"
    "echo 7/udp\ndiscard 9/tcp\nchargen 19/udp\nwrong\nbad x/tcp\ntoobig 70000/tcp\n"
)

HOWTO = r"""# the lines of the HOWTO, unchanged
ftp stream tcp nowait root /usr/local/bin/virtuald virtuald /virtual/conf.ftp wu.ftpd -l -a
pop-3 stream tcp nowait root /usr/bin/virtuald virtuald /virtual/conf.pop in.qpop -s
"""

SERVED = """\
# a comment

echo stream tcp nowait root internal
#ftp\tstream\ttcp\tnowait\troot\t/usr/sbin/tcpd\tin.ftpd
#<off># ftp stream tcp nowait root /usr/sbin/tcpd in.ftpd
127.0.0.1:discard\tstream  tcp nowait.5\troot internal
chargen dgram udp wait root internal
[::1]:2323 stream tcp6 nowait nobody:nogroup /bin/cat cat
  -u
\t-n
   \t
# and then

 2325 stream tcp46 nowait root /bin/cat
ftp stream tcp4 nowait root /usr/bin/virtuald virtuald /virtual/conf.ftp wu.ftpd -l -a
10.0.0.1,127.0.0.5:
2424 stream tcp,rcvbuf=16k nowait root.daemon /bin/cat
:2426 dgram udp4 wait.17 nobody /bin/cat cat #4 is an argument
*:
pop-3 stream tcp wait root /bin/cat cat
127.0.0.9: 2427 stream tcp nowait root /bin/cat
"""

SKIPPED = """\
ftp
ftp stream tcp nowait root
127.0.0.1:ftp
ftp stream tcp,somebuf=4k nowait root /bin/cat cat
nosuch stream tcp nowait root internal
"""
"""What inetd skips with a line in the log."""

GUESSED = """\
2501 stream tcp wai root /bin/cat cat
2502 stream tcp nowait.x root /bin/cat cat
2503x stream tcp nowait root /bin/cat cat
2504 stream tcp nowait root cat cat
2505 streem tcp nowait root /bin/cat cat
2506 dgram tcp wait root /bin/cat cat
2507 stream tcpp nowait root /bin/cat cat
nosuch stream tcp nowait root /bin/cat cat
2508 stream tcp nowait root /usr/bin/virtuald \\ virtuald /virtual/conf.ftp ftpd
2509 stream tcp nowait root /usr/bin/virtuald virtuald /virtual/conf.ftp
echo stream tcp nowait root internal
 daytime stream tcp nowait root internal
99999 stream tcp nowait root /bin/cat cat
2510 stream tcp nowait root. /bin/cat cat
"""
"""What inetd makes something of, and hardly what was meant."""


def parse(text: str) -> tuple[Entry, ...]:
    entries, problems = inetdconf.parse(text, "inetd.conf", PORTS)
    assert problems == ()
    return entries


def problems(text: str) -> list[str]:
    return [str(problem) for problem in inetdconf.parse(text, "inetd.conf", PORTS)[1]]


def test_lines_that_run_virtuald_are_understood() -> None:
    """The HOWTO's lines give the routes, the program and its arguments; the port is that of services(5)."""
    found = [(one.name, one.port, one.virtuald) for one in parse(HOWTO)]
    assert found == [
        ("ftp", 21, Virtuald("/virtual/conf.ftp", ("wu.ftpd", "-l", "-a"), is_verbose=False)),
        ("pop-3", 110, Virtuald("/virtual/conf.pop", ("in.qpop", "-s"), is_verbose=False)),
    ]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/usr/bin/virtuald virtuald /c ftpd -l", Virtuald("/c", ("ftpd", "-l"), is_verbose=False)),
        ("/usr/bin/virtuald virtuald -v /c ftpd", Virtuald("/c", ("ftpd",), is_verbose=True)),
        (
            "/usr/bin/virtuald virtuald -u bob --chroot /c ftpd -u",
            Virtuald("/c", ("ftpd", "-u"), is_verbose=False, user="bob", is_chroot=True),
        ),
        ("/usr/bin/virt virt virtuald /c ftpd", Virtuald("/c", ("ftpd",), is_verbose=False)),
        ("/usr/sbin/tcpd /usr/bin/virtuald /c ftpd", Virtuald("/c", ("ftpd",), is_verbose=False)),
        ("/usr/sbin/tcpd in.ftpd -l", None),
        ("/usr/bin/virt virt exec --domain d true", None),
        ("/bin/cat virtuald /c ftpd", None),
    ],
)
def test_virtuald_is_known_however_it_is_started(command: str, expected: Virtuald | None) -> None:
    """By itself, as a word of virt, or by tcpd, whose argv[0] is the program."""
    [entry] = parse(f"ftp stream tcp nowait root {command}\n")
    assert entry.virtuald == expected
    assert entry.is_tcpd == command.startswith("/usr/sbin/tcpd")


def test_a_line_has_all_its_fields() -> None:
    """Everything inetd(8) lets a line say."""
    [entry] = parse(
        "10.0.0.1,localhost:ftp stream tcp,sndbuf=64k,rcvbuf=1m wait.9 bob.www /bin/d d -x\n"
    )
    assert entry == Entry(
        file="inetd.conf",
        line=1,
        name="ftp",
        port=21,
        kind=Kind.STREAM,
        protocol="tcp",
        hosts=("10.0.0.1", "localhost"),
        is_wait=True,
        max=9,
        user="bob",
        group="www",
        program="/bin/d",
        argv=("d", "-x"),
        sndbuf=65536,
        rcvbuf=1048576,
    )


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("ftp stream tcp", {Bind(2, "0.0.0.0", is_mapped=False), Bind(10, "::", is_mapped=False)}),
        ("ftp stream tcp4", {Bind(2, "0.0.0.0", is_mapped=False)}),
        ("ftp stream tcp6", {Bind(10, "::", is_mapped=False)}),
        ("ftp stream tcp46", {Bind(10, "::", is_mapped=True)}),
        ("127.0.0.1:ftp stream tcp", {Bind(2, "127.0.0.1", is_mapped=False)}),
        ("[::1]:ftp stream tcp", {Bind(10, "::1", is_mapped=False)}),
        (
            "127.0.0.1,127.0.0.2,127.0.0.1:echo dgram udp",
            {Bind(2, "127.0.0.1", is_mapped=False), Bind(2, "127.0.0.2", is_mapped=False)},
        ),
    ],
)
def test_it_listens_where_inetd_does(start: str, expected: set[Bind]) -> None:
    """`tcp` is both families, each for itself; an address only its own."""
    [entry] = parse(f"{start} wait root /bin/cat cat\n")
    assert set(inetdconf.binds(entry)) == expected


@pytest.mark.parametrize("start", ["[::1]:ftp stream tcp4", "no.such.host.invalid:ftp stream tcp"])
def test_an_address_that_cannot_be_is_told(start: str) -> None:
    """With the line it came from."""
    [entry] = parse(f"\n{start} nowait root /bin/cat cat\n")
    with pytest.raises(ConfigError, match=r"inetd\.conf:2"):
        inetdconf.binds(entry)


def test_every_wrong_line_is_told_at_once() -> None:
    """Each by file and line, and the first word of the cause."""
    assert [line.partition(": ")[0] for line in problems(SKIPPED)] == [
        f"inetd.conf:{number}" for number in range(1, 6)
    ]
    told = problems(GUESSED)
    assert [int(line.split(":")[1]) for line in told] == [*range(1, 12), 13, 14]
    assert told[0] == "inetd.conf:1: neither `wait` nor `nowait`: 'wai'"
    assert told[5].startswith("inetd.conf:6: not a protocol of a dgram service: 'tcp'")
    assert "does a line after it begin with a blank?" in told[10]


def test_a_service_twice_is_told() -> None:
    """A real inetd would take the later line; a host of its own makes it another service."""
    line = "stream tcp nowait root /bin/cat cat\n"
    assert problems(f"ftp {line}127.0.0.1:ftp {line}ftp {line}") == [
        "inetd.conf:3: ftp/tcp again: line 1 has it"
    ]


def test_a_line_longer_than_inetd_reads_is_told() -> None:
    """A real inetd would cut it, and take the rest for a line of its own."""
    assert problems(f"ftp stream tcp nowait root /bin/cat cat {'x' * 1000}\n") == [
        "inetd.conf:1: a line of more than 1023 bytes"
    ]


def test_a_file_is_loaded_whole_or_not(tmp_path: Path) -> None:
    """load() reads the host's services(5), and raises what is wrong as one error."""
    conf, services = tmp_path / "inetd.conf", tmp_path / "services"
    services.write_text("ftp 2121/tcp\n")
    conf.write_text(HOWTO.replace("pop-3", "110"))
    assert [one.port for one in inetdconf.load(str(conf), services=str(services))] == [2121, 110]
    conf.write_text(HOWTO)
    with pytest.raises(ConfigError) as told:
        inetdconf.load(str(conf), services=str(services))
    assert [problem.line for problem in told.value.problems] == [3]
    with pytest.raises(ConfigError, match="cannot read"):
        inetdconf.load(str(tmp_path / "absent"))


@given(st.text())
def test_any_text_gives_entries_or_problems_with_lines(text: str) -> None:
    """Nothing else is raised, and each problem names a line of the file."""
    entries, told = inetdconf.parse(text, "f", PORTS)
    lines = text.count("\n") + 1
    assert all(
        1 <= line <= lines for line in [*(one.line for one in entries), *(p.line for p in told)]
    )


@pytest.mark.parametrize(
    ("start", "label"),
    [
        ("ftp stream tcp", "ftp"),
        ("echo dgram udp", "echo/udp"),
        ("ftp stream tcp6", "ftp/tcp6"),
        ("10.0.0.1,10.0.0.2:ftp stream tcp", "10.0.0.1,10.0.0.2:ftp"),
    ],
)
def test_each_line_has_a_name_of_its_own(start: str, label: str) -> None:
    """Counters of two lines must not be one."""
    [entry] = parse(f"{start} wait root /bin/cat cat\n")
    assert entry.label == label


def test_sockets_are_made_as_the_line_says() -> None:
    """Buffer sizes, and one socket for both families where that is asked."""
    [entry] = parse("ftp stream tcp46,sndbuf=4k,rcvbuf=8192 nowait root /bin/cat cat\n")
    [bind] = inetdconf.binds(entry)
    told = inetdconf.socket_options(entry, bind)
    assert told == (
        (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0),
        (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096),
        (socket.SOL_SOCKET, socket.SO_RCVBUF, 8192),
    )


@pytest.mark.parametrize(
    ("text", "expected"), [(None, False), ("# none\n\n", False), ("ALL: PARANOID\n", True)]
)
def test_tcpd_is_asked_where_it_has_rules(tmp_path: Path, text: str | None, expected: bool) -> None:  # noqa: FBT001
    """Serving its lines directly must not open what hosts.deny closes."""
    file = tmp_path / "hosts.deny"
    if text is not None:
        file.write_text(text)
    assert inetdconf.has_host_rules((str(tmp_path / "hosts.allow"), str(file))) is expected


# The real inetd, in a network of its own: what it adds is what it serves.

Line = tuple[str, str, bool, int, str, str, str]
ADDED = re.compile(
    r"(?:ADD|REDO): (?:(\S+):)?(\S+) proto=(\S+), wait\.max=(\d+)\.(\d+) "
    r"user:group=([^:]+):(\S+) builtin=(\S+) server=(\S+)"
)
LAST = "127.9.9.9:9999 stream tcp nowait root /bin/last last\n"


def served_by_inetd(text: str, folder: Path) -> set[Line]:
    """What `inetd -d` says it serves; it is ended once the last line is there."""
    if shutil.which("inetd") is None or shutil.which("unshare") is None:
        pytest.skip("no inetd")
    conf = folder / "inetd.conf"
    conf.write_text(text + ("" if text.endswith("\n") else "\n") + LAST)
    started = subprocess.Popen(
        ["unshare", "--net", "--mount", "inetd", "-d", "-i", str(conf)],
        stderr=subprocess.PIPE,
        text=True,
    )
    found = set()
    try:
        assert started.stderr is not None
        for line in started.stderr:
            if "server=/bin/last" in line:
                break
            told = ADDED.match(line)
            if told:
                host, name, proto, wait, most, user, group, builtin, server = told.groups()
                is_wait = builtin == "0" and wait == "1"
                family = "6" if proto.endswith("6") else "4"
                owner = "" if group == "(default)" else group
                where = host or "*"
                found.add(
                    (f"{where}:{name}/{proto[:3]}", family, is_wait, int(most), user, owner, server)
                )
    finally:
        started.kill()
        started.communicate()
    return found


def served_by_us(text: str) -> set[Line]:
    """The same of our reading, with the ports of the host."""
    ports = inetdconf.read_services(Path("/etc/services").read_text())
    found: set[Line] = set()
    for entry in inetdconf.parse(text, "inetd.conf", ports)[0]:
        for host in entry.hosts:
            families = {"4": "4", "6": "6", "46": "6"}.get(entry.protocol[3:], "46")
            if host != "*":
                families = families.replace("4" if ":" in host else "6", "")
            found |= {
                (
                    f"{host}:{entry.name}/{entry.protocol[:3]}",
                    family,
                    entry.is_wait and not entry.is_internal,
                    entry.max,
                    entry.user,
                    entry.group or "",
                    entry.program,
                )
                for family in families
            }
    return found


def test_the_same_lines_are_served(tmp_path: Path, as_root: None) -> None:
    """Every form of SERVED is served by both, in the same way; what SKIPPED holds, by neither."""
    ours = served_by_us(SERVED)
    assert len(ours) >= 12
    assert served_by_inetd(SERVED, tmp_path) == ours
    assert served_by_inetd(SKIPPED, tmp_path) == served_by_us(SKIPPED) == set()


def test_what_inetd_guesses_we_refuse(tmp_path: Path, as_root: None) -> None:
    """These lines do something under inetd, so that moving from it tells what they did."""
    assert served_by_inetd(GUESSED, tmp_path) != set()
    served = {one.name for one in inetdconf.parse(GUESSED, "f", PORTS)[0]}
    assert served == set()


WORDS = st.sampled_from(
    [
        "2601", "2602", "127.0.0.1:2603", "[::1]:2604", "*:2605", ":2606", "127.0.0.2:", "2607",
    ]
)  # fmt: skip
ROUTINE = st.tuples(
    WORDS,
    st.sampled_from(
        ["stream tcp nowait", "stream tcp4 wait.3", "dgram udp wait", "stream tcp6 nowait.12"]
    ),
    st.sampled_from(["root", "nobody.nogroup", "nobody:nogroup"]),
    st.sampled_from(["/bin/cat", "/bin/cat cat", "/bin/cat cat -u x", "/bin/cat\n\tcat\n -u"]),
    st.sampled_from([" ", "\t", " \t "]),
).map(lambda parts: parts[4].join((parts[0], *parts[1].split(" "), *parts[2:4])))
LINES = st.one_of(
    ROUTINE,
    st.sampled_from(["", "# note", "#", "127.0.0.3:", "*:", "10.0.0.1,127.0.0.4:", "# x\n  # y"]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(LINES, max_size=10))
def test_files_made_at_random_are_read_as_inetd_reads_them(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    """Where we find nothing wrong, inetd serves just what we read."""
    text = "".join(line + "\n" for line in lines)
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6):
        if not inetdconf.parse(text, "f", PORTS)[1]:
            folder = tmp_path_factory.mktemp("inetd")
            assert served_by_inetd(text, folder) == served_by_us(text)
