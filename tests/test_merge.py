"""Layers become one manifest: lists add up, scalars are overridden, and every value knows its line."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.errors import ManifestError
from virttools.manifest.merge import join, merge
from virttools.manifest.model import Etc, Home, LinkMode, Manifest, Origin, Scrub
from virttools.manifest.model import Layer as Text
from virttools.manifest.parse import ParsedLayer, parse


def merged(*texts: str) -> Manifest:
    """Texts as layers 1.toml, 2.toml …, lowest first."""
    return merge([parse(Text(f"{n}.toml", text)) for n, text in enumerate(texts, 1)])


def faults(*texts: str) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        merged(*texts)
    return [str(problem) for problem in caught.value.problems]


def test_nothing_said_is_the_default() -> None:
    """An empty manifest is the default of each value of the model."""
    assert merged() == merged("", "# nothing\n") == Manifest()


def test_later_layers_add_to_lists_and_override_scalars() -> None:
    """DESIGN 4, for plain lists, items and sections."""
    found = merged(
        'addresses = ["192.0.2.1"]\nlink = "copy"\nbinaries = ["sh"]\netc.motd = "one"\nhome.mode = 0o700\n',
        'addresses = ["192.0.2.2"]\nlink = "hard"\nbinaries = ["ls"]\netc.hostname = "www"\n',
    )
    assert found.addresses == ("192.0.2.1", "192.0.2.2")
    assert found.link is LinkMode.HARD
    assert [(binary.name, str(binary.origin)) for binary in found.binaries] == [
        ("sh", "1.toml:3"),
        ("ls", "2.toml:3"),
    ]
    assert found.etc == Etc(motd="one", hostname="www")
    assert found.home == Home(mode=0o700)


def test_an_item_of_the_same_identity_is_replaced_in_place() -> None:
    """The order of declaration stays that of the first, the value and its line are those of the last."""
    found = merged(
        'directories = ["/a", "/b", "/c"]\n',
        '\ndirectories = [{ path = "/b/", mode = 0o700 }, "/d"]\n',
    )
    assert [(str(it.path), it.mode, str(it.origin)) for it in found.directories] == [
        ("/a", 0o755, "1.toml:1"),
        ("/b", 0o700, "2.toml:2"),
        ("/c", 0o755, "1.toml:1"),
        ("/d", 0o755, "2.toml:2"),
    ]


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("files", '"/a"', '{ from = "/a", optional = true }'),
        ("files", '{ from = "/x", to = "/a" }', '{ from = "/y", to = "/a" }'),
        ("symlinks", '{ path = "/l", to = "a" }', '{ path = "/l", to = "b" }'),
        ("devices", '"null"', '{ path = "/dev/null", type = "c", major = 1, minor = 3 }'),
        ("templates", '{ from = "a", to = "/m" }', '{ from = "b", to = "/m" }'),
        ("users", '{ name = "bob", uid = 1 }', '{ name = "bob", uid = 2 }'),
        ("groups", '{ name = "www", gid = 1 }', '{ name = "www", gid = 2 }'),
        ("packages", '"x"', '{ name = "x", optional = true }'),
        (
            "services",
            '{ name = "a", port = 1, program = "/a" }',
            '{ name = "a", port = 2, program = "/a" }',
        ),
        ("daemons", '{ name = "a", program = "/a" }', '{ name = "a", program = "/b" }'),
    ],
)
def test_what_makes_two_items_the_same(key: str, first: str, second: str) -> None:
    """Path, name of account, of service, of package: the later declaration is the one that counts."""
    upper = merged(f"{key} = [{second}]")
    both = merged("", f"{key} = [{first}]", f"{key} = [{second}]")
    (found,) = getattr(both, key)
    (wanted,) = getattr(upper, key)
    assert str(found).replace("3.toml", "1.toml") == str(wanted)


def test_an_empty_list_forgets_what_earlier_layers_said() -> None:
    """And what later layers say is added to nothing; other keys stay."""
    lower = 'binaries = ["sh"]\nsetuid = ["/bin/su"]\nscrub.operations = "default,-x"\n'
    reset = "binaries = []\nscrub.operations = []\n"
    found = merged(lower, reset, 'binaries = ["ls"]\n')
    assert [binary.name for binary in found.binaries] == ["ls"]
    assert found.setuid == (PurePosixPath("/bin/su"),)
    assert found.scrub == Scrub(operations=())


@pytest.mark.parametrize(
    ("texts", "operations"),
    [
        ((), ("default",)),
        (('"-x"',), ("default", "-x")),
        (('"default,-x"', '"+x"'), ("default", "+x")),
        (('["a", "b"]',), ("a", "b")),
        (('"default,-x"', '["-y"]'), ("default", "-x", "-y")),
    ],
)
def test_scrub_operations_add_up(texts: tuple[str, ...], operations: tuple[str, ...]) -> None:
    """A sign changes what is said before, or the default; the last word on an operation counts."""
    assert merged(*(f"scrub.operations = {text}" for text in texts)).scrub.operations == operations


def test_what_was_included_is_not_taken_back() -> None:
    """An empty list of profiles includes none, but the names of those that are there remain."""
    found = merged('profiles = ["base"]', "profiles = []", 'profiles = ["login"]')
    assert found.profiles == ("base", "login")


def test_every_plain_value_knows_its_line() -> None:
    """Scalars by key, list values by key and index in the merged list."""
    found = merged(
        'addresses = [\n  "192.0.2.1",\n  "192.0.2.2",\n]\nlink = "copy"\n',
        '\naddresses = ["192.0.2.3"]\n[etc]\nmotd = ""\nsearch = ["a.b"]\n',
    )
    assert {key: str(origin) for key, origin in found.origins} == {
        "addresses[0]": "1.toml:2",
        "addresses[1]": "1.toml:3",
        "addresses[2]": "2.toml:2",
        "link": "1.toml:5",
        "etc.motd": "2.toml:4",
        "etc.search[0]": "2.toml:5",
    }


def test_groups_must_be_declared_somewhere() -> None:
    """In any layer; root is always there, and a user without a group has one of its own."""
    merged(
        'users = [{ name = "bob", group = "www", groups = ["root", "ann"] }, { name = "ann" }]',
        'groups = [{ name = "www" }]',
    )
    assert faults(
        '[[users]]\nname = "bob"\ngroup = "wwww"\n',
        '\ngroups = [{ name = "www", members = ["bobb"] }]',
    ) == [
        '1.toml:1: user "bob" is in the group "wwww", which is not declared, allowed: root, www, did you mean "www"?',
        '2.toml:2: group "www" has the member "bobb", which is not declared, allowed: root, bob, did you mean "bob"?',
    ]


def test_two_layers_cannot_give_one_number_to_two_names() -> None:
    """uids, gids and ports, each with the line of the second and of the first."""
    assert faults(
        'users = [{ name = "ann", uid = 7 }]\ngroups = [{ name = "a", gid = 8 }]\n'
        'services = [{ name = "ftp", port = 21, program = "/a" }]',
        'users = [{ name = "bob", uid = 7 }]\ngroups = [{ name = "b", gid = 8 }]\n'
        'services = [{ name = "tftp", port = 21, program = "/a" }]',
    ) == [
        '2.toml:1: "bob" has the uid 7, which "ann" has (1.toml:1), allowed: once',
        '2.toml:2: "b" has the gid 8, which "a" has (1.toml:2), allowed: once',
        '2.toml:3: "tftp" has the port 21/tcp, which "ftp" has (1.toml:3), allowed: once',
    ]


def test_a_daemon_cannot_have_the_port_of_another_or_of_a_service() -> None:
    """Of tcp: what listens later would find it taken."""
    daemon = '[[daemons]]\nname = "{0}"\nprogram = "/a"\nports = [{1}]\n'
    assert faults(
        'services = [{ name = "pop", port = 110, program = "/a" }]\n' + daemon.format("one", 25),
        daemon.format("two", "110, 25"),
    ) == [
        '2.toml:1: "two" has the port 110/tcp, which "pop" has (1.toml:1), allowed: once',
        '2.toml:1: "two" has the port 25/tcp, which "one" has (1.toml:2), allowed: once',
    ]
    udp = 'services = [{ name = "dns", port = 53, protocol = "udp", program = "/a" }]\n'
    assert merged(udp + daemon.format("named", 53)).daemons[0].ports == (53,)


def test_a_probe_asks_a_port_that_its_service_has() -> None:
    """One may ask each of a daemon's, by what is spoken there; a site's probe replaces that of its kind."""
    mail = '[[daemons]]\nname = "mail"\nprogram = "/a"\nports = [110, 143]\n'
    probe = '[[probes]]\nservice = "mail"\nkind = "{}"\nport = {}\n'
    assert faults(mail + probe.format("imap", 134)) == [
        '1.toml:5: a probe tries the port 134 of "mail", allowed: 110, 143'
    ]
    found = merged(mail + probe.format("pop", 110), probe.format("imap", 143))
    assert [(one.kind, one.port) for one in found.probes] == [("pop", 110), ("imap", 143)]
    (again,) = merged(mail + probe.format("pop", 110), probe.format("pop", 143)).probes
    assert again.port == 143


def test_one_port_may_serve_two_protocols() -> None:
    """DNS answers on 53/tcp and 53/udp."""
    service = '{{ name = "{0}", port = 53, protocol = "{0}", program = "/a" }}'
    found = merged(f"services = [{service.format('tcp')}, {service.format('udp')}]")
    assert len(found.services) == 2


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), unique=True, max_size=3)


@st.composite
def layers(draw: st.DrawFn) -> ParsedLayer:
    """A layer that says a few things, with resets among them."""
    said = draw(
        st.sets(st.sampled_from(["profiles", "binaries", "scrub.operations", "etc.search"]))
    )
    lines = [f"{key} = {json.dumps(draw(NAMES))}" for key in sorted(said)]
    if draw(st.booleans()):
        users = ", ".join(f'{{ name = "{name}" }}' for name in draw(NAMES))
        lines.append(f"users = [{users}]")
    if draw(st.booleans()):
        lines.append(f'link = "{draw(st.sampled_from(["copy", "hard"]))}"')
    return parse(Text(f"{draw(st.integers(0, 9))}.toml", "\n".join(draw(st.permutations(lines)))))


@given(layers(), layers(), layers())
def test_joining_is_associative(low: ParsedLayer, middle: ParsedLayer, high: ParsedLayer) -> None:
    """Which layers are joined first makes no difference, and nothing joined is nothing."""
    assert join(join(low, middle), high) == join(low, join(middle, high))
    assert join(low, ParsedLayer()) == low == join(ParsedLayer(), low)
    assert merge([low, middle, high]) == merge([join(low, middle), high])


def test_options_have_an_origin_without_a_line() -> None:
    """What the command line says is shown as from there."""
    found = merge([parse(Text("command line", 'addresses = ["192.0.2.9"]'))])
    assert found.origins == (("addresses[0]", Origin("command line", 0)),)
