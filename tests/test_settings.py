"""Settings come from the option, VIRT_ROOT, virt.toml and the default, in this order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from virttools import settings
from virttools.errors import ConfigError, Problem


def written(tmp_path: Path, text: str) -> str:
    file = tmp_path / "virt.toml"
    file.write_text(text)
    return str(file)


def test_an_option_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    """DESIGN 4: option > VIRT_ROOT > virt.toml > default."""
    file = written(tmp_path, 'root = "/srv/file"\n')
    environ = {"VIRT_ROOT": "/srv/environ", "XDG_DATA_HOME": "/data"}
    default = "/virtual" if os.geteuid() == 0 else "/data/virttools"
    found = [
        settings.load(environ, root="/srv/option", file=file).root,
        settings.load(environ, file=file).root,
        settings.load({}, file=file).root,
        settings.load({"XDG_DATA_HOME": "/data"}, file=str(tmp_path / "none")).root,
    ]
    assert found == ["/srv/option", "/srv/environ", "/srv/file", default]


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    """VIRT_ROOT= is as good as none."""
    file = written(tmp_path, 'root = "/srv/file/"\n')
    assert settings.load({"VIRT_ROOT": ""}, file=file).root == "/srv/file"


def test_a_relative_root_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root is absolute from here on, since commands change directory."""
    monkeypatch.chdir(tmp_path)
    found = settings.load({}, root="trees", file=str(tmp_path / "none")).root
    assert found == f"{tmp_path}/trees"


def test_the_file_says_the_rest(tmp_path: Path) -> None:
    """virt.toml has the folder of links, the picker and the profiles of a domain without others."""
    text = 'bindir = "/usr/local/bin"\npicker = "dialog"\nprofiles = ["base", "login"]\n'
    found = settings.load({}, root="/srv", file=written(tmp_path, text))
    assert (found.bindir, found.picker, found.profiles) == (
        "/usr/local/bin",
        "dialog",
        ("base", "login"),
    )


def test_the_host_is_a_route_only_where_that_is_said(tmp_path: Path) -> None:
    """allow_host is a flag, false unless the file says otherwise."""
    assert settings.load({}, file=str(tmp_path / "none")).allow_host is False
    assert settings.load({}, file=written(tmp_path, "allow_host = true\n")).allow_host is True
    with pytest.raises(ConfigError) as told:
        settings.load({}, file=written(tmp_path, 'allow_host = "yes"\n'))
    assert told.value.problems[0].message == "allow_host is no flag, allowed: true or false"


def test_services_of_the_host_are_a_list(tmp_path: Path) -> None:
    """What is in it is the server's to read: no other command is slower for it."""
    settings.load({}, file=written(tmp_path, '[[services]]\nname = "q"\n'))
    with pytest.raises(ConfigError) as told:
        settings.load({}, file=written(tmp_path, "[services]\n"))
    assert told.value.problems[0].message == "services is no list, allowed: [[services]]"


def test_everything_works_without_a_file(tmp_path: Path) -> None:
    """Nothing has to be configured."""
    found = settings.load({}, root="/srv", file=str(tmp_path / "no" / "virt.toml"))
    assert (found.bindir, found.picker, found.profiles, found.file) == (None, None, ("base",), None)


def test_every_problem_of_the_file_is_told_with_its_line(tmp_path: Path) -> None:
    """Unknown keys get a hint; wrong values say what is allowed."""
    text = '# site\nrot = "/x"\nroot = "x/y"\nbindir = 3\npicker = ""\nprofiles = "base"\n'
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        settings.load({}, file=file)
    assert caught.value.message == f"cannot use {file}: 5 problems"
    assert caught.value.exit_code == 78
    path = "is no path, allowed: an absolute path without .."
    assert caught.value.problems == (
        Problem(
            file,
            2,
            "unknown key 'rot', allowed: root, bindir, picker, profiles, allow_host, interface, services, did you mean root?",
        ),
        Problem(file, 3, f"root {path}"),
        Problem(file, 4, f"bindir {path}"),
        Problem(file, 5, "picker is no text, allowed: a word"),
        Problem(file, 6, 'profiles is no list of names, allowed: as in ["base", "login"]'),
    )


def test_a_fault_of_syntax_has_its_line(tmp_path: Path) -> None:
    """What tomllib says in its own way is said in ours."""
    file = written(tmp_path, 'root = "/x"\nroot /y\n')
    with pytest.raises(ConfigError) as caught:
        settings.load({}, file=file)
    assert [str(problem) for problem in caught.value.problems] == [
        f"{file}:2: expected '=' after a key in a key/value pair (column 6)"
    ]


@pytest.mark.parametrize("kind", ["directory", "fifo", "huge", "latin-1"])
def test_what_is_no_readable_file_is_one_sentence(tmp_path: Path, kind: str) -> None:
    """A fifo does not hold us up, and nothing else either."""
    file = tmp_path / "virt.toml"
    if kind == "directory":
        file.mkdir()
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.write_bytes(b"#" * 2_000_000 if kind == "huge" else b"# \xff")
    with pytest.raises(ConfigError, match=r"cannot read .*virt.toml: "):
        settings.load({}, file=str(file))


def test_the_fast_way_stays_fast(tmp_path: Path) -> None:
    """Without a virt.toml no heavy module is imported."""
    program = (
        f"import sys; sys.path.insert(0, {str(Path(settings.__file__).parents[1])!r})\n"
        f"from virttools import settings; settings.load({{}}, file={str(tmp_path / 'none')!r})\n"
        "print(*sorted({'tomllib', 're', 'typing', 'dataclasses', 'pathlib'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
