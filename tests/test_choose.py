"""Which domain is meant: by what is typed, by a file of root's, by what was used last."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.enter import choose, history, marker, matching
from virttools.enter.listing import Row, ago, lines
from virttools.errors import BadName, EnterError, UsageError
from virttools.settings import Settings

NAMES = ("alpha.com", "alpine.org", "beta.com", "beta.com.au", "xn--mller-kva.de", "123.net")

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=3).map(".".join)
rosters = st.lists(domains, min_size=1, max_size=30, unique=True).map(tuple)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("1", "alpha.com"),
        (" 6 ", "123.net"),
        ("12", "123.net"),
        ("7", None),
        ("0", None),
        ("alph", "alpha.com"),
        ("al", None),
        ("beta.com", "beta.com"),
        ("BETA.COM.", "beta.com"),
        ("beta.com.", "beta.com"),
        ("beta.com.a", "beta.com.au"),
        ("pine", "alpine.org"),
        ("mller", "xn--mller-kva.de"),
        ("bau", "beta.com.au"),
        ("aorg", "alpine.org"),
        (".com", None),
        ("-", "beta.com"),
        ("", None),
        ("zzz", None),
        ("²", None),
    ],
)
def test_what_is_typed_means_one_domain_or_none(typed: str, meant: str | None) -> None:
    """A whole name, a number, a unique begin, a unique part, unique letters, or `-`; never a guess."""
    found = matching.choice(typed, NAMES, last="beta.com")
    assert (None if found is None else NAMES[found]) == meant


def test_without_a_last_one_a_hyphen_means_nothing() -> None:
    """`-` is the last domain that was used and is still there."""
    assert matching.choice("-", NAMES) is None
    assert matching.choice("-", NAMES, last="gone.com") is None
    assert matching.near("-", NAMES, last="gone.com") == []


@given(rosters, st.data())
def test_each_name_and_each_number_reaches_its_domain(
    names: tuple[str, ...], data: st.DataObject
) -> None:
    """Whatever the other names are, the whole name works, and so does its number if no name is one."""
    position = data.draw(st.integers(0, len(names) - 1))
    assert matching.choice(names[position], names) == position
    number = str(position + 1)
    if number not in names:
        assert matching.choice(number, names) == position


@given(rosters, st.data())
def test_a_begin_is_enough_exactly_where_it_is_unique(
    names: tuple[str, ...], data: st.DataObject
) -> None:
    """Of a begin that several names share, none is taken, unless it is one of them itself."""
    name = data.draw(st.sampled_from(names))
    begin = name[: data.draw(st.integers(1, len(name)))]
    if begin.isdigit() or begin.endswith("."):
        return
    sharing = [position for position, other in enumerate(names) if other.startswith(begin)]
    expected = names.index(begin) if begin in names else None
    if len(sharing) == 1:
        expected = sharing[0]
    assert matching.choice(begin, names) == expected


@given(rosters, st.text(max_size=12))
def test_what_is_chosen_is_the_first_of_the_menu(names: tuple[str, ...], typed: str) -> None:
    """The menu holds each position once, and what Enter would take stands on top of it."""
    found = matching.near(typed, names)
    assert len(set(found)) == len(found)
    assert set(found) <= set(range(len(names)))
    chosen = matching.choice(typed, names)
    if chosen is not None:
        assert found[0] == chosen


@given(rosters, st.data())
def test_letters_in_their_order_find_the_name(names: tuple[str, ...], data: st.DataObject) -> None:
    """Any letters of a name, in order, keep it in the menu."""
    name = data.draw(st.sampled_from(names))
    kept = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    typed = "".join(letter for letter, keep in zip(name, kept, strict=True) if keep)
    if not typed.endswith(".") and typed != "-":
        assert names.index(name) in matching.near(typed, names)


@given(st.lists(domains, max_size=20, unique=True), st.integers(1, 200))
def test_every_width_shows_every_name_whole(names: list[str], width: int) -> None:
    """A line fits into the width unless its domain alone does not; a domain is never cut."""
    rows = tuple(
        Row(name, addresses="192.0.2.1, 2001:db8::1", profiles="base, login", used=0.0)
        for name in names
    )
    shown = lines(rows, width, 60.0)
    for number, (name, line) in enumerate(zip(names, shown, strict=True), 1):
        assert line.split()[:2] == [str(number), name]
        assert len(line) < width or line.split() == [str(number), name]


def test_a_line_tells_what_is_wrong_first() -> None:
    """What does not fit is what matters least."""
    row = Row("domain1.com", addresses="192.0.2.1", health="no record", used=0.0)
    assert lines((row,), 80, 7200.0) == ["1 domain1.com  ! no record  192.0.2.1  used 2 h ago"]
    assert lines((row,), 28, 7200.0) == ["1 domain1.com  ! no record"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "just now"), (59, "just now"), (60, "1 min ago"), (7300, "2 h ago"), (9e5, "10 d ago")],
)
def test_times_are_told_in_the_largest_unit(seconds: float, told: str) -> None:
    """Also where a clock was set back."""
    assert ago(seconds) == told


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with two domains; the caller says nothing and stands in a folder of its own."""
    root = tmp_path / "virtual"
    for name in ("domain1.com", "domain2.com", ".virt", "../here"):
        (root / name).resolve().mkdir(parents=True)
    (root / ".virt").chmod(0o700)
    monkeypatch.chdir(tmp_path / "here")
    for name in ("VIRT_DOMAIN", "SUDO_UID", "DOAS_USER", "PKEXEC_UID"):
        monkeypatch.delenv(name, raising=False)
    return root


def chosen(root: Path, asked: str | None = None) -> str:
    return choose.domain(Settings(str(root)), asked, "passwd")


def test_the_option_comes_first_then_the_variable(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--domain, VIRT_DOMAIN; names are normalised; an empty variable says nothing."""
    monkeypatch.setenv("VIRT_DOMAIN", "Domain2.COM.")
    assert chosen(root, "domain1.com") == "domain1.com"
    assert chosen(root) == "domain2.com"
    (root / "domain2.com").rmdir()
    monkeypatch.setenv("VIRT_DOMAIN", "")
    assert chosen(root) == "domain1.com"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".virt", "a\nb"])
def test_what_is_no_name_is_refused(root: Path, name: str) -> None:
    """As --domain says it, before any path is made of it."""
    with pytest.raises((EnterError, BadName)):
        chosen(root, name)


def test_no_domain_at_all_is_said(tmp_path: Path) -> None:
    """An empty root has nothing to choose from."""
    with pytest.raises(EnterError, match="holds none"):
        choose.domain(Settings(str(tmp_path)), None, "id")


class TestMarker:
    """`.virt-domain`: only root's own word counts. These need root to make files of root's."""

    pytestmark = pytest.mark.usefixtures("as_root")

    def test_the_nearest_one_up_from_here_counts(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Deep below it still holds; a nearer one wins."""
        (root / "../here/.virt-domain").write_text("domain2.com\n")
        deep = root / "../here/a/b"
        deep.mkdir(parents=True)
        monkeypatch.chdir(deep)
        assert chosen(root) == "domain2.com"
        (deep / ".virt-domain").write_text("domain1.com\n# more\n")
        assert chosen(root) == "domain1.com"

    @pytest.mark.parametrize("name", ["SUDO_UID", "DOAS_USER", "PKEXEC_UID"])
    def test_it_does_not_count_under_sudo(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        """There somebody else chose the working directory."""
        (root / "../here/.virt-domain").write_text("domain2.com\n")
        monkeypatch.setenv(name, "1000")
        assert marker.find(str(root), os.environ) is None

    def test_one_that_others_could_have_made_does_not_count(self, root: Path) -> None:
        """Another's, writable, a second name, a link, a fifo, a folder, too large: each is passed over."""
        file = root / "../here/.virt-domain"

        def plain() -> None:
            file.write_text("domain2.com\n")

        def owned() -> None:
            plain()
            os.chown(file, 1234, 0)

        def writable() -> None:
            plain()
            file.chmod(0o664)

        def linked() -> None:
            plain()
            os.link(file, root / "../here/second")

        def large() -> None:
            file.write_text("domain2.com\n" * 100)

        spoilt: list[Callable[[], object]] = [
            owned,
            writable,
            linked,
            large,
            lambda: os.mkfifo(file),
        ]
        spoilt += [lambda: file.symlink_to(root / "../here/true"), lambda: file.write_text("\n")]
        (root / "../here/true").write_text("domain2.com\n")
        for spoil in spoilt:
            spoil()
            assert marker.find(str(root), os.environ) is None
            file.unlink()
        file.mkdir()
        assert marker.find(str(root), os.environ) is None

    def test_one_inside_a_tree_does_not_count(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Root of a domain could name another one there; the file above the trees still holds."""
        tree = root / "domain1.com/home/bob"
        tree.mkdir(parents=True)
        (tree / ".virt-domain").write_text("domain2.com\n")
        monkeypatch.chdir(tree)
        assert marker.find(str(root), os.environ) is None
        (root / ".virt-domain").write_text("domain1.com\n")
        assert chosen(root) == "domain1.com"

    def test_a_working_directory_that_is_gone_has_none(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nothing is found, and nothing fails."""
        gone = root / "../here/gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        assert marker.find(str(root), os.environ) is None

    def test_one_that_names_no_domain_is_an_error(self, root: Path) -> None:
        """It says something, and what it says is wrong: no question in its place."""
        (root / "../here/.virt-domain").write_text("domain3.com\n")
        with pytest.raises(EnterError, match=r"which \.virt-domain names"):
            chosen(root)


def test_the_last_use_is_kept_by_command(root: Path) -> None:
    """Each command has a memory of its own; its path does not matter."""
    for name in ("domain1.com", "domain2.com", "domain1.com"):
        history.remember(str(root), "/usr/bin/passwd", name)
    history.remember(str(root), "vi", "domain2.com")
    names = ("domain1.com", "domain2.com")
    times = history.used(str(root), "passwd")
    assert set(times) == set(names)
    os.utime(root / ".virt/last/passwd/domain1.com", (2, 2))
    assert history.latest(history.used(str(root), "passwd"), names) == "domain2.com"
    assert history.latest(history.used(str(root), "vi"), names) == "domain2.com"
    assert history.latest(history.used(str(root), "ed"), names) is None


def test_a_domain_that_goes_is_forgotten(root: Path) -> None:
    """Every command forgets it, and only it; a planted link is no way out."""
    outside = root / "../here/domain1.com"
    outside.write_text("kept")
    for command in ("passwd", "vi"):
        history.remember(str(root), command, "domain1.com")
        history.remember(str(root), command, "domain2.com")
    (root / ".virt/last/ed").symlink_to(root / "../here")
    history.forget(str(root), "domain1.com")
    left = [set(history.used(str(root), command)) for command in ("passwd", "vi")]
    assert (left, outside.read_text()) == ([{"domain2.com"}] * 2, "kept")
    history.forget(str(root / "../nowhere"), "domain1.com")


def test_nothing_is_remembered_where_it_cannot_be(root: Path) -> None:
    """No records, a folder others can read, a name that is none, a domain that is gone: no error."""
    history.remember(str(root), "passwd", "gone.com")
    history.remember(str(root), "..", "domain1.com")
    assert not (root / ".virt/last").exists() or not list((root / ".virt/last").rglob("*.com"))
    (root / ".virt").chmod(0o755)
    history.remember(str(root), "passwd", "domain1.com")
    assert history.used(str(root), "passwd") == {}
    (root / ".virt").rename(root / ".gone")
    history.remember(str(root), "passwd", "domain1.com")
    assert history.used(str(root), "passwd") == {}
    assert not (root / ".virt").exists()


def test_links_in_the_memory_are_not_followed(root: Path) -> None:
    """Nothing outside is touched by it."""
    outside = root / "../here/file"
    outside.write_text("kept")
    os.utime(outside, (1, 1))
    (root / ".virt/last/passwd").mkdir(parents=True)
    (root / ".virt/last/passwd/domain1.com").symlink_to(outside)
    (root / ".virt/last/vi").symlink_to(root / "../here")
    history.remember(str(root), "passwd", "domain1.com")
    history.remember(str(root), "vi", "domain1.com")
    assert (outside.stat().st_mtime, sorted(os.listdir(root / "../here"))) == (1, ["file"])


def test_only_so_many_commands_are_remembered(root: Path) -> None:
    """Ever new names of commands do not fill the disk."""
    for number in range(300):
        history.remember(str(root), f"command{number}", "domain1.com")
    assert len(os.listdir(root / ".virt/last")) == 256


def test_without_a_terminal_the_choice_is_listed(root: Path) -> None:
    """A session of its own has none: UsageError, which is status 2, with every domain."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            chosen(root)
        except UsageError as error:
            os.write(write_fd, f"{error.exit_code} {error.message}".encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    os.waitpid(pid, 0)
    with open(read_fd) as told:
        assert told.read() == (
            "2 cannot choose a domain: there are several:\ndomain1.com\ndomain2.com"
        )
