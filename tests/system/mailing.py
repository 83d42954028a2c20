"""A machine of a test's own, with a DNS: domains that send mail to each other under a real `virt serve`."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.system import server
from tests.system.calls import VIRT, Done, Virt
from tests.system.fetching import fetched
from tests.system.server import Server
from tests.system.waiting import PATIENCE, until

DNS = "10.80.0.53"
ONE, TWO = "domain1.com", "domain2.com"
ADDRESSES = {ONE: "10.80.0.1", TWO: "10.80.0.2"}
ANN = "ann@elsewhere.test"
_UP = """\
ip link set lo up
for address; do ip address add "$address/24" dev lo; done
echo up
exec sleep 100000
"""
_SEND = """\
import json, smtplib, sys
address, source, sender, recipients, text = json.load(sys.stdin)
with smtplib.SMTP(address, 25, "client.test", timeout=60, source_address=(source, 0)) as client:
    try:
        told = client.sendmail(sender, recipients, text)
    except smtplib.SMTPRecipientsRefused as error:
        told = error.recipients
    except smtplib.SMTPResponseException as error:
        told = {"": (error.smtp_code, error.smtp_error)}
print(json.dumps({who: [code, said.decode()] for who, (code, said) in told.items()}))
"""


_TLS = """\
import smtplib, sys
with smtplib.SMTP(sys.argv[1], 25, "client.test", timeout=60) as client:
    client.ehlo()
    print(client.has_extn("starttls") and client.starttls()[0])
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """A network and mounts of its own, for whatever is started `within` it; virt: its domains."""

    pid: int
    virt: Virt
    folder: Path

    def within(self, *words: str) -> list[str]:
        return [
            "nsenter",
            f"--net=/proc/{self.pid}/ns/net",
            f"--mount=/proc/{self.pid}/ns/mnt",
            *words,
        ]

    def run(self, *words: str, text: str = "") -> Done:
        done = subprocess.run(
            self.within(*words),
            env=self.virt.environment(),
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def inside(self, domain: str, *words: str, text: str = "") -> Done:
        """A command in a domain, as an administrator runs it."""
        return self.run(str(VIRT), "exec", "--domain", domain, "--", *words, text=text)

    def by_link(self, domain: str, name: str) -> Done:
        """The same by a symlink virtNAME, which is made for it."""
        link = self.folder / f"virt{name}"
        if not link.is_symlink():
            self.virt.good("link", "--bindir", str(self.folder), name)
        return self.run("env", f"VIRT_DOMAIN={domain}", str(link))

    def hand_in(self, domain: str, *words: str, told: str) -> None:
        """A message by sendmail inside; words: its options, and to whom."""
        done = self.inside(domain, "sendmail", *words, text=f"Subject: x\n\n{told}\n")
        assert done.status == 0, done.err

    def send(
        self, through: str, sender: str, *recipients: str, text: str = "", source: str = DNS
    ) -> dict[str, list[object]]:
        """Hand a message to a domain's server; what it refused, by recipient: status and words."""
        message = f"Subject: test\r\n\r\n{text}\r\n"
        told = json.dumps([ADDRESSES[through], source, sender, recipients, message])
        done = self.run(sys.executable, "-I", "-c", _SEND, text=told)
        assert done.status == 0, done.err
        refused: dict[str, list[object]] = json.loads(done.out)
        return refused

    def offers_tls(self, domain: str) -> bool:
        """Whether STARTTLS is offered, and then works."""
        done = self.run(sys.executable, "-I", "-c", _TLS, ADDRESSES[domain])
        assert done.out in ("220\n", "False\n"), done.err
        return done.out == "220\n"

    def have_own_etc(self) -> None:
        """Let what is written to /etc from now on be seen in this machine only."""
        script = """\
        mount -t tmpfs -o mode=755 none /mnt
        mkdir /mnt/upper /mnt/work
        mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
        """
        done = self.run("sh", "-ec", script)
        assert done.status == 0, done.err

    def write_settings(self, text: str) -> None:
        done = self.run(
            "sh", "-ec", "mkdir -p /etc/virttools; cat >/etc/virttools/virt.toml", text=text
        )
        assert done.status == 0, done.err

    def spool(self, domain: str, user: str = "bob") -> str:
        done = self.run("cat", str(self.virt.tree(domain) / "var/mail" / user))
        return done.out

    def await_mail(self, domain: str, text: str, user: str = "bob") -> str:
        """Wait until a spool has the text; all of it."""
        until(
            lambda: text in self.spool(domain, user), f"{text!r} in the mail of {user} of {domain}"
        )
        return self.spool(domain, user)


@contextlib.contextmanager
def machine(folder: Path, virt: Virt) -> Iterator[Machine]:
    """Namespaces that a process holds; what is mounted there ends with it."""
    words = ["unshare", "--net", "--mount", "sh", "-ec", _UP, "sh", DNS, *ADDRESSES.values()]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield Machine(process.pid, virt, folder)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


PACKAGES = {"smtp-sendmail": ("sendmail-bin", "procmail"), "smtp-postfix": ("postfix",)}
"""What a profile needs and tests do not install, as mail servers exclude each other."""


@contextlib.contextmanager
def domains(folder: Path, profile: str) -> Iterator[Machine]:
    """A machine that has what the profile needs, and both domains made of it."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder.chmod(0o755)
    virt = Virt(folder / "virtual")
    with machine(folder, virt) as found:
        if profile in PACKAGES:
            have_packages(found, *PACKAGES[profile])
        build(found, profile)
        yield found
    virt.sweep()


def have_packages(here: Machine, *names: str) -> None:
    """Let this machine's /usr have the programs of packages that exclude others."""
    folder = here.folder / "packages"
    folder.mkdir()
    for package in fetched(folder, *names):
        subprocess.run(["dpkg-deb", "-x", package, folder / "all"], check=True)
    for place in ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec"):
        if not (folder / f"all{place}").is_dir():
            continue
        lower = f"lowerdir={folder}/all{place}:{place}"
        assert here.run("mount", "-t", "overlay", "-o", lower, "none", place).status == 0


@contextlib.contextmanager
def serving(here: Machine, folder: Path) -> Iterator[Server]:
    """`virt serve` on that machine; its log lies in folder."""
    with server.serving(here.virt.root, folder, wrapper=here.within()) as found:
        yield found


@contextlib.contextmanager
def dns(here: Machine) -> Iterator[None]:
    """A dnsmasq with the A and MX of every domain, and an empty answer or NXDOMAIN for all else."""
    found = shutil.which("dnsmasq", path="/usr/sbin:/usr/bin")
    if found is None:
        pytest.skip("needs dnsmasq")
    log = here.folder / "dns.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            here.within(found, *_dns_words()), stdin=subprocess.DEVNULL, stderr=stream
        )
    try:
        until(lambda: "started" in log.read_text() or process.poll() is not None, "dnsmasq")
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait()


def _dns_words() -> Sequence[str]:
    words = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
    ]
    words += ["--bind-interfaces", f"--listen-address={DNS}", "--log-facility=-", "--user=root"]
    words += ["--local=/com/", "--local=/test/", "--local=/arpa/"]
    for name, address in ADDRESSES.items():
        words += [f"--host-record={name},mail.{name},{address}", f"--mx-host={name},mail.{name},10"]
    return words


def queued(here: Machine, domain: str) -> str:
    """What mailq of a domain lists."""
    done = here.by_link(domain, "mailq")
    assert done.status == 0, done.err
    return done.out


def alias(here: Machine, path: str) -> None:
    """Have an alias sales in the first domain, by its newaliases: that one takes mail for it, and only that."""
    ann = f"ann@{TWO}"  # of a domain that there is: sendmail asks
    assert [told[0] for told in here.send(ONE, ann, f"sales@{ONE}").values()] == [550]
    with (here.virt.tree(ONE) / path).open("a") as file:
        file.write("sales: bob\n")
    done = here.by_link(ONE, "newaliases")
    assert done.status == 0, done.err
    assert here.send(ONE, ann, f"sales@{ONE}", text="one for sales") == {}
    here.await_mail(ONE, "one for sales")
    assert [told[0] for told in here.send(TWO, ann, f"sales@{TWO}").values()] == [550]


QUEUES = {
    "smtp": ("/usr/sbin/exim4", "-qff"),
    "smtp-sendmail": ("/usr/sbin/sendmail", "-Am", "-q"),
}
"""What runs a queue whatever was tried before: no test waits for the next quarter of an hour."""


def build(here: Machine, profile: str) -> None:
    """The domains, each with a bob, in numbers of its own."""
    here.virt.root.mkdir(mode=0o755)
    for number, (name, address) in enumerate(ADDRESSES.items(), 1):
        file = here.folder / f"{name}.toml"
        file.write_text(
            f'profiles = ["{profile}"]\naddresses = ["{address}"]\nuid_base = {number * 262144}\n'
            f'users = [{{ name = "bob" }}]\n[etc]\nnameservers = ["{DNS}"]\n{_queue(profile)}'
        )
        done = here.run(str(VIRT), "create", "--yes", name, "-m", str(file))
        assert done.status == 0, done.err


def _queue(profile: str) -> str:
    """Has the queue run every second, where the server runs it."""
    if profile not in QUEUES:
        return ""
    program, *args = QUEUES[profile]
    return (
        f'[[services]]\nname = "mail-queue"\nevery = "1s"\nprogram = "{program}"\n'
        f"args = {json.dumps(args)}\n"
    )


def owner(here: Machine, domain: str, user: str = "bob") -> tuple[str, str, int]:
    """Whose a spool is, by the names of its domain, and its mode."""
    done = here.inside(domain, "stat", "-c", "%U %G %a", f"/var/mail/{user}")
    name, group, mode = done.out.split()
    return name, group, int(mode, 8)
