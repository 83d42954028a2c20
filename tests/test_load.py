"""The layers of a domain: which files count, in which order, and how what they include is found."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from virttools.errors import BadName, ManifestError
from virttools.manifest import profiles
from virttools.manifest.load import Loaded, load, reload
from virttools.manifest.model import Layer

Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file below a site's folder and returns its path."""

    def write(name: str, text: str) -> str:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return str(file)

    return write


def loaded(
    site: Path,
    file: str | None = None,
    *,
    with_profiles: tuple[str, ...] = (),
    addresses: tuple[str, ...] = (),
) -> Loaded:
    return load(
        "domain1.com",
        manifest_file=file,
        profiles=with_profiles,
        addresses=addresses,
        site=str(site),
    )


def order(found: Loaded, site: Path) -> list[str]:
    return [layer.file.removeprefix(f"{site}/") for layer in found.layers]


def faults(site: Path, file: str | None = None, **options: tuple[str, ...]) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        loaded(site, file, **options)
    return [str(problem).replace(f"{site}/", "") for problem in caught.value.problems]


def test_includes_come_first_depth_first_and_once(tmp_path: Path, write: Write) -> None:
    """A file overrides what it includes, and the first mention decides the place."""
    write("profiles/t-base.toml", 'binaries = ["sh"]\n')
    write("profiles/t-login.toml", 'profiles = ["t-base"]\nbinaries = ["su"]\n')
    write("profiles/t-ftp.toml", 'profiles = ["t-base", "t-login"]\nbinaries = ["ftp"]\n')
    file = write("www.toml", 'profiles = ["t-ftp", "t-login"]\nbinaries = ["www"]\n')
    found = loaded(tmp_path, file)
    assert order(found, tmp_path) == [
        "profiles/t-base.toml",
        "profiles/t-login.toml",
        "profiles/t-ftp.toml",
        "www.toml",
    ]
    assert [binary.name for binary in found.manifest.binaries] == ["sh", "su", "ftp", "www"]
    assert found.manifest.profiles == ("t-base", "t-login", "t-ftp")


def test_a_manifest_named_by_option_goes_before_the_sites_own(tmp_path: Path, write: Write) -> None:
    """-m > manifests/DOMAIN.toml > -p > base."""
    write("profiles/base.toml", "")
    write("profiles/t-login.toml", "")
    assert order(loaded(tmp_path), tmp_path) == ["profiles/base.toml", "default"]
    assert order(loaded(tmp_path, with_profiles=("t-login",)), tmp_path) == [
        "profiles/t-login.toml",
        "command line",
    ]
    write("manifests/domain1.com.toml", "")
    file = write("m.toml", "link = 'copy'\n")
    assert order(loaded(tmp_path), tmp_path) == ["manifests/domain1.com.toml"]
    assert order(loaded(tmp_path, file), tmp_path) == ["m.toml"]


def test_profiles_of_options_are_added_below_the_manifest(tmp_path: Path, write: Write) -> None:
    """-p with -m: after the manifest's own includes, and the manifest still overrides them."""
    write("profiles/base.toml", "home.mode = 0o711\n")
    write("profiles/t-ftp.toml", 'profiles = ["base"]\nhome.mode = 0o755\nlink = "hard"\n')
    file = write("m.toml", 'profiles = ["base"]\nlink = "copy"\n')
    found = loaded(tmp_path, file, with_profiles=("t-ftp", "t-ftp"), addresses=("2001:DB8::1",))
    assert order(found, tmp_path) == [
        "profiles/base.toml",
        "profiles/t-ftp.toml",
        "m.toml",
        "command line",
    ]
    assert (found.manifest.link, found.manifest.home.mode) == ("copy", 0o755)
    assert found.manifest.addresses == ("2001:db8::1",)
    assert found.layers[-1].text == 'profiles = ["t-ftp"]\naddresses = ["2001:DB8::1"]\n'


def test_a_link_mode_of_the_options_overrides_all(tmp_path: Path, write: Write) -> None:
    """--link goes before every file, and is checked as a file's word is."""
    file = write("m.toml", 'link = "copy"\n')
    hard = load(
        "a.example", manifest_file=file, profiles=(), addresses=(), site=str(tmp_path), link="hard"
    )
    assert hard.manifest.link == "hard"
    with pytest.raises(ManifestError) as caught:
        load(
            "a.example",
            manifest_file=file,
            profiles=(),
            addresses=(),
            site=str(tmp_path),
            link="hrad",
        )
    assert [str(problem) for problem in caught.value.problems] == [
        'command line: link is "hrad", allowed: auto, reflink, hard, copy, did you mean "hard"?'
    ]


def test_a_record_is_read_again_without_any_file(tmp_path: Path, write: Write) -> None:
    """The layers alone give the equal manifest, also when all files are gone."""
    write("profiles/base.toml", 'binaries = ["sh"]\n[[users]]\nname = "bob"\n')
    file = write("m.toml", 'profiles = ["base"]\naddresses = ["192.0.2.1"]\n')
    found = loaded(tmp_path, file, addresses=("192.0.2.2",))
    (tmp_path / "profiles/base.toml").unlink()
    Path(file).unlink()
    assert reload(found.layers) == found.manifest


def test_the_name_of_the_domain_is_checked_first(tmp_path: Path) -> None:
    """A name that is a path reads no file."""
    with pytest.raises(BadName):
        load("../x", manifest_file=None, profiles=(), addresses=(), site=str(tmp_path))


def test_a_domain_is_found_under_any_of_its_spellings(tmp_path: Path, write: Write) -> None:
    """The site's own manifest is called by the normal form."""
    write("manifests/domain1.com.toml", "link = 'hard'\n")
    found = load("DOMAIN1.com.", manifest_file=None, profiles=(), addresses=(), site=str(tmp_path))
    assert order(found, tmp_path) == ["manifests/domain1.com.toml"]


def test_profiles_that_include_each_other_are_an_error(tmp_path: Path, write: Write) -> None:
    """The chain is named, with the line that closes it."""
    write("profiles/t-a.toml", 'profiles = ["t-b"]\n')
    write("profiles/t-b.toml", '\nprofiles = [\n  "t-c",\n]\n')
    write("profiles/t-c.toml", 'profiles = ["t-c", "t-b"]\n')
    assert faults(tmp_path, with_profiles=("t-a",)) == [
        "profiles/t-c.toml:1: profiles include each other: t-c -> t-c",
        "profiles/t-c.toml:1: profiles include each other: t-b -> t-c -> t-b",
    ]


def test_a_very_long_chain_of_profiles_is_an_error(tmp_path: Path, write: Write) -> None:
    """Depth is bounded, by a sentence."""
    for n in range(150):
        write(f"profiles/t-{n}.toml", f'profiles = ["t-{n + 1}"]\n')
    (fault,) = faults(tmp_path, with_profiles=("t-0",))
    assert fault == "profiles/t-99.toml:1: profiles include each other 100 deep"


def test_an_unknown_profile_gets_a_hint_and_the_line_that_names_it(
    tmp_path: Path, write: Write
) -> None:
    """Every unknown one at once, in files and options."""
    write("profiles/t-weblog.toml", 'profiles = ["t-weblogg"]\n')
    file = write("m.toml", 'profiles = [\n  "t-weblog",\n  "t-welog",\n]\n')
    found = faults(tmp_path, file, with_profiles=("t-webloggg",))
    assert [fault.partition(": there are")[0] for fault in found] == [
        'profiles/t-weblog.toml:1: cannot find the profile "t-weblogg"',
        'm.toml:3: cannot find the profile "t-welog"',
        'command line: cannot find the profile "t-webloggg"',
    ]
    assert all(fault.endswith('did you mean "t-weblog"?') for fault in found)


def test_everything_wrong_in_all_layers_is_reported_at_once(tmp_path: Path, write: Write) -> None:
    """Faults of the profiles, of the manifest and of the options come in one list."""
    write("profiles/t-a.toml", 'lnk = "x"\nprofiles = ["t-b"]\n')
    write("profiles/t-b.toml", "[[users]]\n")
    file = write("m.toml", 'profiles = ["t-a"]\n\nuid_base = "x"\n')
    found = faults(tmp_path, file, addresses=("300.1.1.1", 'a"\\\x7f\n😀'))
    assert [fault.partition(" ")[0] for fault in found] == [
        "m.toml:3:",
        "command",
        "command",
        "profiles/t-a.toml:1:",
        "profiles/t-b.toml:1:",
    ]


def test_faults_that_only_the_whole_shows_have_lines(tmp_path: Path, write: Write) -> None:
    """A group that no layer declares."""
    write("profiles/t-a.toml", 'groups = [{ name = "www" }]\n')
    file = write("m.toml", '\n[[users]]\nname = "bob"\ngroup = "ww"\n')
    (fault,) = faults(tmp_path, file, with_profiles=("t-a",))
    assert fault.startswith('m.toml:2: user "bob" is in the group "ww", which is not declared')


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("directory", "is a directory"),
        ("fifo", "it is a fifo, not a file"),
        ("missing", "no such file or directory"),
        ("huge", "it is larger than 1 MB"),
        ("latin-1", "line 2 is not UTF-8"),
        ("dangling", "no such file or directory"),
    ],
)
def test_what_is_no_readable_file_is_one_sentence(tmp_path: Path, kind: str, cause: str) -> None:
    """Status 65, and no waiting for a writer."""
    file = tmp_path / "m.toml"
    match kind:
        case "directory":
            file.mkdir()
        case "fifo":
            os.mkfifo(file)
        case "huge":
            file.write_bytes(b"#" * (1 << 20) + b"\n")
        case "latin-1":
            file.write_bytes(b"# one\n# \xfc\n")
        case "dangling":
            file.symlink_to("nowhere")
        case _:
            pass
    with pytest.raises(ManifestError) as caught:
        loaded(tmp_path, str(file))
    assert caught.value.message == f"cannot read {file}: {cause}"
    assert caught.value.exit_code == 65


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path, write: Write) -> None:
    """A manifest of another user, for an ordinary user."""
    file = write("m.toml", "")
    Path(file).chmod(0)
    if os.geteuid() == 0:
        assert loaded(tmp_path, file, with_profiles=()).layers == (Layer(file, ""),)
        return
    with pytest.raises(ManifestError, match="permission denied"):
        loaded(tmp_path, file)


def test_the_mark_of_windows_editors_is_no_fault(tmp_path: Path) -> None:
    """A byte order mark and CRLF are read over."""
    file = tmp_path / "m.toml"
    file.write_bytes(b'\xef\xbb\xbflink = "copy"\r\nuid_base = 1\r\n')
    found = loaded(tmp_path, str(file))
    assert dict(found.manifest.origins)["uid_base"].line == 2


def test_a_sites_own_profile_wins(tmp_path: Path, write: Write) -> None:
    """Own ones are called by their path; names() has both kinds, and nothing that is no profile."""
    folder = f"{tmp_path}/profiles"
    file = write("profiles/base.toml", "# ours\n")
    write("profiles/.hidden.toml", "")
    write("profiles/README", "")
    assert profiles.find("base", site=folder) == Layer(file, "# ours\n")
    known = profiles.names(site=folder)
    assert "base" in known
    assert not {".hidden", "README"} & set(known)
    assert profiles.names(site=f"{tmp_path}/none") == tuple(sorted(profiles.names(site="/none")))


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "", ".x", "a\0b", "-x"])
def test_a_profile_is_a_name_and_no_path(tmp_path: Path, name: str) -> None:
    """No text leads out of the folders of profiles."""
    with pytest.raises(ManifestError, match=r"cannot use .* as a profile"):
        profiles.find(name, site=str(tmp_path))


def test_shipped_profiles_are_called_the_same_everywhere() -> None:
    """A record does not tell where the package is installed."""
    for name in profiles.names(site="/none"):
        assert profiles.find(name, site="/none").file == f"profiles/{name}.toml"
