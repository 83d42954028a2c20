"""Declared services become routes of virtuald, and the text of other super-servers."""

from dataclasses import replace
from importlib.resources import files

import pytest

from virttools.errors import ConfigError, ManifestError
from virttools.manifest.model import (
    Daemon,
    Isolation,
    Manifest,
    Origin,
    Rate,
    ResourceLimit,
    Restart,
    Service,
    TimeSpan,
)
from virttools.serve import rendered, routes, services
from virttools.serve.rendered import Site
from virttools.serve.services import Declared, Resident

FTP = Service(
    "ftp", 21, "tcp", "root", "/bin/ftpd", ("-l",), Isolation.NAMESPACE, None, Origin("d.toml", 3)
)
NGINX = Daemon(
    "nginx", "/usr/sbin/nginx", ("-g", "daemon off; $x%n"), "web", (), Isolation.NAMESPACE,
    Restart.ON_FAILURE, 60, "SIGQUIT", 20, (80,), -1, (ResourceLimit("files", 4096),), Origin("d.toml", 9),
)  # fmt: skip
QUEUE = replace(FTP, name="queue", port=None, every=3600)
SITE = Site("/virtual", "/usr/bin/virt", "/usr/bin/virtuald")


def template(name: str) -> str:
    return (files("virttools") / "templates" / name).read_text(encoding="utf-8")


def two(first: Service, second: Service | None = None, *more: str) -> list[Declared]:
    """Two domains that declare it."""
    return [
        *services.declared("a.example", Manifest(services=(first,), addresses=("192.0.2.1", *more))),
        *services.declared("b.example", Manifest(services=(second or first,), addresses=("192.0.2.2",))),
    ]  # fmt: skip


def text(kind: str, found: list[Declared]) -> str:
    return "".join(one.text for one in rendered.render(kind, found, SITE, template))


def lines(kind: str, found: list[Declared]) -> list[str]:
    """What is said, without comments and blank lines."""
    said = text(kind, found).splitlines()
    return [line.strip() for line in said if line.strip() and not line.startswith("#")]


def test_routes_lead_each_address_to_its_tree() -> None:
    """One file for each service, which virtuald reads back to what was declared."""
    written = services.routes([*two(FTP, None, "2001:db8::1"), *two(QUEUE)], "/virtual")
    assert written == {
        "conf.ftp": f"{services.MARK}\n192.0.2.1 /virtual/a.example\n"
        "2001:db8::1 /virtual/a.example\n192.0.2.2 /virtual/b.example\n"
    }
    found = routes.parse(written["conf.ftp"], "conf.ftp")
    assert found.hidden() == []
    assert found.find(routes.pack("192.0.2.2") or b"", 21) == "/virtual/b.example"


def test_a_service_on_two_ports_is_routed_by_port() -> None:
    """Where domains have one name on different ports, an address alone would say too much."""
    written = services.routes(two(FTP, replace(FTP, port=2121)), "/virtual")
    assert written["conf.ftp"].splitlines()[1:] == [
        "192.0.2.1:21 /virtual/a.example",
        "192.0.2.2:2121 /virtual/b.example",
    ]


def test_a_domain_without_an_address_is_told_of() -> None:
    """It declares a service that nobody can reach."""
    found = services.declared("a.example", Manifest(services=(FTP, QUEUE)))
    assert [str(one) for one in services.problems(found)] == [
        "d.toml:3: ftp of a.example is served to nobody: the domain has no addresses"
    ]
    assert services.routes(found, "/virtual") == {}


def test_domains_alike_share_an_entry_and_others_do_not() -> None:
    """One entry on all addresses is enough where virtuald alone decides; else each address has one."""
    other = replace(FTP, program="/bin/other")
    waiting = replace(FTP, wait=True)
    assert [
        [(one.domains, one.address) for one in services.entries(found, "/virtual")]
        for found in (two(FTP), two(FTP, other), two(waiting), two(FTP, None, "::1"))
    ] == [
        [(("a.example", "b.example"), None)],
        [(("a.example",), "192.0.2.1"), (("b.example",), "192.0.2.2")],
        [(("a.example",), "192.0.2.1"), (("b.example",), "192.0.2.2")],
        [(("a.example",), "192.0.2.1"), (("a.example",), "::1"), (("b.example",), "192.0.2.2")],
    ]


def test_a_port_where_a_daemon_answers_has_an_entry_for_each_address() -> None:
    """On all addresses there would be none left for the daemon."""
    found = [
        [one.address for one in services.entries(two(FTP), "/virtual", [there])]
        for there in (
            Resident("c.example", replace(NGINX, ports=(21, 990))),
            Resident("c.example", NGINX),
        )
    ]
    assert found == [["192.0.2.1", "192.0.2.2"], [None]]


def test_a_line_of_inetd_has_what_the_service_has() -> None:
    """User and isolation go to virtuald, the rate becomes starts a minute, IPv6 its own family."""
    service = replace(FTP, user="bob", isolation=Isolation.CHROOT, cps=Rate(5, 10))
    words = "root /usr/bin/virtuald virtuald -u bob --chroot /virtual/conf.ftp /bin/ftpd -l"
    assert lines("inetd", two(service, None, "::1")) == [
        f"192.0.2.1:21 stream tcp nowait.300 {words}",
        f"[::1]:21 stream tcp6 nowait.300 {words}",
        f"192.0.2.2:21 stream tcp nowait.300 {words}",
    ]
    udp = replace(FTP, protocol="udp")
    assert lines("inetd", two(udp))[0].startswith("192.0.2.1:21 dgram udp wait.1000000 root ")


def test_an_entry_of_xinetd_has_what_the_service_has() -> None:
    """The options have xinetd's names and values; a span across midnight becomes two."""
    service = replace(
        FTP, instances=9, per_source=2, cps=Rate(5, 10), nice=3, only_from=("10.0.0.0/8",),
        no_access=("10.1.0.0/16",), access_times=(TimeSpan(1320, 360), TimeSpan(480, 1440)),
        log_on_success=("PID", "HOST"), log_on_failure=(),
        rlimits=(ResourceLimit("as", 4096), ResourceLimit("core", 0), ResourceLimit("cpu", None)),
    )  # fmt: skip
    assert lines("xinetd", two(service)) == [
        "service ftp", "{", "id = ftp-21", "type = UNLISTED", "socket_type = stream",
        "protocol = tcp", "port = 21", "wait = no", "user = root", "server = /usr/bin/virtuald",
        "server_args = /virtual/conf.ftp /bin/ftpd -l", "instances = 9", "per_source = 2",
        "cps = 5 10", "nice = 3", "rlimit_as = 4096", "rlimit_cpu = UNLIMITED",
        "only_from = 10.0.0.0/8", "no_access = 10.1.0.0/16",
        "access_times = 22:00-23:59 0:00-6:00 8:00-23:59", "log_on_success = PID HOST", "log_on_failure =",
        "}",
    ]  # fmt: skip
    assert "# without rlimits core: xinetd has no such thing\n" in text("xinetd", two(service))


def test_units_of_systemd_have_what_the_service_has() -> None:
    """A socket and a template for a service, a timer and a service for what is run every so often."""
    service = replace(
        FTP, args=("a b", "$x%n", 'q"\\'), instances=9, per_source=2, timeout=60, nice=-1,
        backlog=7, no_access=("10.1.0.0/16",), rlimits=(ResourceLimit("files", None),),
    )  # fmt: skip
    found = rendered.render("systemd", [*two(service), *two(QUEUE)], SITE, template)
    assert [one.name for one in found] == [
        "virt-ftp-21.socket",
        "virt-ftp-21@.service",
        "virt-queue-a.example.timer",
        "virt-queue-a.example.service",
        "virt-queue-b.example.timer",
        "virt-queue-b.example.service",
    ]
    said = "".join(one.text for one in found).splitlines()
    assert {
        "ListenStream=192.0.2.1:21", "ListenStream=192.0.2.2:21", "Accept=yes", "Backlog=7",
        "MaxConnections=9", "MaxConnectionsPerSource=2", "RuntimeMaxSec=60", "Nice=-1",
        "IPAddressDeny=10.1.0.0/16", "LimitNOFILE=infinity", "OnUnitActiveSec=3600",
        'ExecStart=-"/usr/bin/virtuald" "/virtual/conf.ftp" "/bin/ftpd" "a b" "$$x%%n" "q\\"\\\\"',
    } <= set(said)  # fmt: skip
    periodic = (
        '"/usr/bin/virt" "--root" "/virtual" "exec" "--domain" "a.example" "--" "/bin/ftpd" "-l"'
    )
    assert f"ExecStart={periodic}" in said


def unit(daemon: Daemon) -> list[str]:
    found = rendered.daemon_units([Resident("a.example", daemon)], SITE, template)
    assert [one.name for one in found] == ["virt-nginx-a.example.service"]
    return found[0].text.splitlines()


def test_a_unit_of_systemd_has_what_the_daemon_has() -> None:
    """It is started as declared, ended by its signal, and no start limit ends it for good."""
    said = unit(NGINX)
    program = '"/usr/sbin/nginx" "-g" "daemon off; $$x%%n"'
    entrance = '"exec" "--domain" "a.example" "--user" "web" "--allow-setid" "--"'
    assert said[0] == "# virt render systemd: nginx of a.example."
    assert said[1] == "# without a wait that grows to backoff: `virt serve` has it"
    assert [line for line in said[2:] if line] == [
        "[Unit]", "Description=nginx of a.example", "After=network.target", "StartLimitIntervalSec=0",
        "[Service]", "Type=exec",
        f'ExecStart="/usr/bin/virt" "--root" "/virtual" {entrance} {program}',
        "Restart=on-failure", "RestartSec=1", "KillMode=mixed", "KillSignal=SIGQUIT",
        "TimeoutStopSec=20", "IgnoreSIGPIPE=no", "Nice=-1", "LimitNOFILE=4096",
        "[Install]", "WantedBy=multi-user.target",
    ]  # fmt: skip


def test_a_unit_of_systemd_says_what_it_does_without() -> None:
    """Groups, and a signal that `virt exec` passes on only where it becomes the program."""
    gentle = replace(NGINX, groups=("ssl",), stop_signal="SIGWINCH", restart=Restart.NO)
    said = unit(gentle)
    assert said[1] == "# without groups, stop_signal SIGWINCH: `virt serve` has it"
    assert {"KillSignal=SIGTERM", "Restart=no"} <= set(said)
    said = unit(replace(gentle, groups=(), isolation=Isolation.CHROOT))
    assert said[1] == "[Unit]"
    assert {"KillSignal=SIGWINCH", "PrivateIPC=yes"} <= set(said)
    assert any('"--user" "web" "--chroot" "--"' in line for line in said)


@pytest.mark.parametrize(
    ("kind", "options", "what"),
    [
        ("inetd", {"only_from": ("10.0.0.0/8",)}, "only_from"),
        ("inetd", {"no_access": ("10.0.0.0/8",)}, "no_access"),
        ("systemd", {"access_times": (TimeSpan(0, 60),)}, "access_times"),
        (
            "systemd",
            {"only_from": ("10.0.0.0/8",), "no_access": ("10.1.0.0/16",)},
            "only_from and no_access at once",
        ),
        ("xinetd", {"proxy_protocol": ("10.0.0.1",)}, "proxy_protocol"),
    ],
)
def test_nobody_is_let_in_because_a_super_server_knows_less(
    kind: str, options: dict[str, tuple[str]], what: str
) -> None:
    """What restricts who comes in is said or refused, with the line that declares it."""
    with pytest.raises(ConfigError) as told:
        text(kind, two(replace(FTP, **options)))  # type: ignore[arg-type]
    assert str(told.value.problems[0]) == f"d.toml:3: {kind} has no way to say {what} of ftp"


@pytest.mark.parametrize("kind", ["inetd", "xinetd"])
@pytest.mark.parametrize("word", ["a b", "#x", "x\ty", ""])
def test_an_argument_that_would_be_two_is_refused(kind: str, word: str) -> None:
    """These configurations have no quotes that all agree on."""
    with pytest.raises(ManifestError, match="cannot be one word"):
        text(kind, two(replace(FTP, args=(word,))))
