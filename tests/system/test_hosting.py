"""docs/hosting.md, typed on a machine of its own and one beside it: two domains, and neither hears of the other."""

import shlex
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import permutations

import pytest

from tests.system import guide, machine
from tests.system.calls import Done
from tests.system.clients import Customer
from tests.system.guide import Command, Reader, Step
from tests.system.waiting import until

pytestmark = pytest.mark.usefixtures("as_root")

SECRETS = {"domain1.com": "one-Secret", "domain2.com": "two-Secret"}
ANNS = "three-Secret"
SETUP = (
    "Packages",
    "Manifests",
    "Create",
    "Addresses",
    "Names",
    "Users and passwords",
    "Serving",
)
"""The sections of the guide after which everything runs."""

USED = ("From another computer", "Mail")
DAEMONS = "Daemons of its own"
INETD = "inetd instead"
LATER = ("Checking", "Logs", "When something is wrong")

# What curl ends with.
HTTP_ERROR = 22
UPLOAD_FAILED = 25
LOGIN_DENIED = 67
NOT_THERE = 78


@pytest.fixture(scope="module")
def told() -> dict[str, list[Step]]:
    return guide.parts("docs/hosting.md")


@pytest.fixture(scope="module")
def hosted(
    told: dict[str, list[Step]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    """Two machines, and on the first one what the guide makes of a fresh Debian."""
    virtual = tmp_path_factory.mktemp("virtual")
    virtual.chmod(0o755)
    with (
        machine.server(virtual, "192.0.2.1") as here,
        machine.client(here, "192.0.2.100", "192.0.2.1") as there,
    ):
        reader = Reader(here, there, secret)
        for title in SETUP:
            reader.follow(told[title])
        yield reader
        here.run("systemctl", "disable", "--now", "virt-serve", "virt-log", "inetd")
    shutil.rmtree(virtual)


def secret(command: Command) -> str:
    """Bob's password in the domain that is named; where the guide says it is refused, the other bob's.

    Of a third domain, it is Ann's.
    """
    if not any(domain in command.line for domain in SECRETS):
        return ANNS
    own = next(domain for domain in SECRETS if domain in command.line)
    return next(word for domain, word in SECRETS.items() if (domain == own) != command.fails)


def bobs(hosted: Reader) -> list[Customer]:
    return [Customer(hosted.client, domain, word) for domain, word in SECRETS.items()]


@contextmanager
def under_inetd(hosted: Reader, told: dict[str, list[Step]]) -> Iterator[None]:
    """What the guide's section does, and back."""
    hosted.follow(told[INETD])
    try:
        yield
    finally:
        hosted.server.good("systemctl", "disable", "--now", "inetd")
        hosted.server.good("systemctl", "enable", "--now", "virt-serve")


def test_the_guide_is_whole(told: dict[str, list[Step]]) -> None:
    """No section of the guide is left untyped."""
    typed = [title for title, steps in told.items() if steps]
    assert typed == [*SETUP, *USED, DAEMONS, INETD, *LATER]


def test_the_units_of_the_guide_are_good(hosted: Reader) -> None:
    """Systemd finds nothing wrong in them: here another program starts what they say."""
    units = [f"/etc/systemd/system/virt-{name}.service" for name in ("log", "serve")]
    done = hosted.server.run("systemd-analyze", "verify", *units)
    assert (done.status, [line for line in done.err.splitlines() if "virt-" in line]) == (0, [])


@pytest.mark.parametrize("title", USED)
def test_what_the_guide_does_from_another_computer(
    hosted: Reader, told: dict[str, list[Step]], title: str
) -> None:
    """What is typed there does what the guide shows, in its order."""
    hosted.follow(told[title])


def test_a_domain_has_daemons_of_its_own(hosted: Reader, told: dict[str, list[Step]]) -> None:
    """A third one, while the others are served; whoever types is slower than a daemon that starts."""
    steps = told[DAEMONS]
    reload = next(number for number, step in enumerate(steps) if "reload" in str(step))
    hosted.follow(steps[: reload + 1])
    until(lambda: is_listening(hosted, 80) and is_listening(hosted, 445), "nginx and smbd")
    hosted.follow(steps[reload + 1 :])


def is_listening(hosted: Reader, port: int) -> bool:
    return bool(hosted.server.good("ss", "-Hltn", f"src 192.0.2.13:{port}"))


@pytest.mark.parametrize("server", ["virt serve", "inetd"])
def test_two_bobs_use_everything(hosted: Reader, told: dict[str, list[Step]], server: str) -> None:
    """Real clients of both domains at once, each service, each its own; the other's password is refused."""
    with under_inetd(hosted, told) if server == "inetd" else nullcontext():
        pairs = list(permutations(bobs(hosted)))
        at_once(pairs, check_ftp, check_anonymous, check_web, check_mail, check_refused)
        at_once(pairs, check_new_password)
        at_once(pairs, partial(check_neighbour, hosted, f"under {server}"))
        assert all(bob.forget(1).status == 0 for bob in bobs(hosted))


def at_once(pairs: list[tuple[Customer, ...]], *checks: Callable[..., None]) -> None:
    """Check both bobs at one time: who is refused waits for seconds."""
    with ThreadPoolExecutor() as threads:
        running = [threads.submit(check, *pair) for pair in pairs for check in checks]
        for one in running:
            one.result()


def check_ftp(bob: Customer, other: Customer) -> None:
    """Up, down, and away; not in the other's home."""
    text = f"of bob at {bob.domain}\n"
    name = f"of-{bob.domain}.txt"
    assert bob.ftp(name, "-T", "-", typed=text).status == 0
    assert bob.ftp(name).out == text
    assert name not in other.ftp("").out
    assert bob.ftp("", "-Q", f"DELE {name}").status == 0
    assert bob.ftp(name).status == NOT_THERE


def check_anonymous(bob: Customer, other: Customer) -> None:
    """Reads what lies there, and writes nothing."""
    assert "pub" in bob.curl(f"ftp://{bob.domain}/").out
    told = bob.curl(f"ftp://{bob.domain}/pub/mine.txt", "-T", "/etc/hostname")
    assert told.status == UPLOAD_FAILED


def check_web(bob: Customer, other: Customer) -> None:
    """The site of the name, by one address or the other."""
    done = bob.curl("-i", f"http://{bob.domain}/")
    assert done.out.startswith(("HTTP/1.1 200", "HTTP/1.0 200")), done
    assert (bob.domain in done.out, other.domain in done.out) == (True, False)
    assert bob.curl("-f", f"http://{bob.domain}/none").status == HTTP_ERROR
    told = ("-o", "/dev/null", "-w", "%{http_code} %{size_download}")
    part = bob.curl("--compressed", "-r", "1-2", *told, f"http://{bob.domain}/")
    assert part.out == "206 2"


def check_mail(bob: Customer, other: Customer) -> None:
    """From outside, and from the other domain; nobody's is not taken, and nothing is passed on for strangers."""
    assert bob.mail("fred@example.org", "from far away").status == 0
    assert bob.mail("fred@example.org", "for nobody", to=f"no.one@{bob.domain}").status != 0
    assert bob.mail("fred@example.org", "passed on", to=f"bob@{other.domain}").status != 0
    until(lambda: "from far away" in "".join(bob.letters()), "the letter from far away")
    assert "passed on" not in "".join(other.letters())
    assert bob.forget(1).status == 0


def check_neighbour(hosted: Reader, said: str, bob: Customer, other: Customer) -> None:
    """From the other bob, by a program inside, found through DNS, and fetched by POP."""
    inside = ("virt", "exec", "--domain", other.domain)
    text = f"{said}, {other.domain}"
    words = ("--user", "bob", "--", "sendmail", f"bob@{bob.domain}")
    hosted.server.good(*inside, *words, typed=f"Subject: x\n\n{text}\n")
    hosted.server.good(*inside, "--", "sendmail", "-q")
    until(lambda: text in "".join(bob.letters()), f"the letter {text}")
    assert text not in "".join(other.letters())


def check_refused(bob: Customer, other: Customer) -> None:
    """The password of the other domain's bob opens nothing here."""
    thief = replace(bob, password=other.password)
    tries: list[Callable[[], Done]] = [
        lambda: thief.ftp(""),
        thief.pop,
        lambda: thief.change("Stolen-one"),
    ]
    with ThreadPoolExecutor() as threads:
        told = threads.map(lambda one: one(), tries)
    assert [done.status for done in told] == [LOGIN_DENIED, LOGIN_DENIED, 1]


def check_new_password(bob: Customer, other: Customer) -> None:
    """It counts at once, for all that ask PAM; the old one does no more, and the other bob keeps his."""
    fresh = replace(bob, password=f"Fresh-9-{bob.domain}")
    assert bob.change(fresh.password).status == 0
    try:
        assert (fresh.ftp("").status, fresh.pop().status) == (0, 0)
        assert bob.ftp("").status == LOGIN_DENIED
    finally:
        assert fresh.change(bob.password).status == 0


def test_what_one_domain_does_is_not_seen_in_the_other(hosted: Reader) -> None:
    """Bob of the first is busy; tree, spool, log and processes of the second are as before."""
    one, two = bobs(hosted)
    before = seen_in(hosted, two.domain)
    assert one.ftp("busy.txt", "-T", "-", typed="busy\n").status == 0
    assert one.mail("fred@example.org", "busy").status == 0
    assert replace(one, password=two.password).ftp("").status == LOGIN_DENIED
    words = ["virt", "exec", "--domain", one.domain, "--user", "bob", "--"]
    hosted.server.good(*words, "logger", "busy-bob")
    until(lambda: "busy-bob" in log_of(hosted, one.domain), "the line in the log")
    assert seen_in(hosted, two.domain) == before
    sleeper = [*words, "sh", "-c", "touch /tmp/awake; exec sleep 4711"]
    with hosted.server.terminal(shlex.join(sleeper)):
        awake = f"/virtual/{one.domain}/tmp/awake"
        until(lambda: hosted.server.run("test", "-e", awake).status == 0, awake)
        assert "sleep 4711" in hosted.server.good("ps", "ax")
        inside = hosted.server.good("virt", "exec", "--domain", two.domain, "--", "ps", "ax")
        assert "sleep" not in inside


@pytest.mark.parametrize("title", LATER)
def test_how_the_guide_looks_after_it(
    hosted: Reader, told: dict[str, list[Step]], title: str
) -> None:
    """The checks are green; what is broken then is found, and mended by what the guide tells."""
    hosted.follow(told[title])


def seen_in(hosted: Reader, domain: str) -> str:
    """Every path of a tree with its size and times, its spool, and what its log says.

    Its own queue may be run meanwhile, as every quarter of an hour.
    """
    tree = hosted.server.good("find", f"/virtual/{domain}", "-printf", "%p %i %s %T@ %U %m\n")
    log = log_of(hosted, domain).splitlines()
    return tree + "\n".join(line for line in log if " queue run: " not in line)


def log_of(hosted: Reader, domain: str) -> str:
    return hosted.server.run("cat", f"/var/log/virt/domains/{domain}.log").out
