"""The host's own services: what virt.toml says to be run every so often."""

import pwd
from pathlib import Path

import pytest

from virttools.domains import host_services
from virttools.errors import ConfigError
from virttools.serve.board import Board, Place, Target


def written(folder: Path, text: str) -> str:
    file = folder / "virt.toml"
    file.write_text(text)
    return str(file)


def test_a_service_becomes_a_command_of_the_host(tmp_path: Path) -> None:
    """After the domains' own, run by its user, in no tree; other keys of the file are not looked at."""
    text = """\
    root = "/virtual"
    [[services]]
    name = "mail-queue"
    every = "15m"
    program = "/usr/sbin/exim4"
    args = ["-q"]
    user = "nobody"
    nice = 5
    rlimits = ["files=64"]
    """
    theirs = Target("smtp", Place("domain1.com", "/v/domain1.com"), path=b"/x", argv=(), env={})
    board = host_services.added(Board((theirs,), (), ("a note",)), written(tmp_path, text))
    first, target = board.targets
    assert first is theirs
    assert (target.name, target.place.isolation, target.every) == ("mail-queue host", "none", 900)
    assert target.argv == (b"/usr/sbin/exim4", b"-q")
    assert target.ids is not None
    assert target.ids.uid == pwd.getpwnam("nobody").pw_uid
    assert (target.nice, len(target.rlimits)) == (5, 1)
    assert board.notes == ("a note",)
    assert target.env[b"USER"] == b"nobody"


def test_root_is_root(tmp_path: Path) -> None:
    """Without a user, nothing has to be changed."""
    text = '[[services]]\nname = "q"\nevery = "1h"\nprogram = "/bin/true"\n'
    (target,) = host_services.targets(written(tmp_path, text))
    assert target.ids is None


def test_what_is_wrong_is_told_all_at_once_with_its_line(tmp_path: Path) -> None:
    """What manifests refuse is refused here, too, and what makes no sense on the host."""
    text = """\
root = "/virtual"
[[services]]
name = "web"
port = 80
program = "/bin/true"
[[services]]
name = "queue"
every = "1h"
program = "/bin/true"
groups = ["mail"]
isolation = "chroot"
"""
    file = written(tmp_path, text)
    with pytest.raises(ConfigError) as told:
        host_services.targets(file)
    assert [str(problem) for problem in told.value.problems] == [
        f"{file}:2: web has a port; the host's services have every instead",
        f"{file}:6: queue has groups; on the host a user has its own",
        f"{file}:6: queue has isolation; the host has none",
    ]
    with pytest.raises(ConfigError) as told:
        host_services.targets(written(tmp_path, '[[services]]\nname = "q"\nevry = "1h"\n'))
    assert "evry" in str(told.value.problems[0])
    assert told.value.problems[0].line == 3


def test_an_unknown_user_of_the_host_is_told(tmp_path: Path) -> None:
    """Raised at start and at a reload, where the old set stays."""
    text = '[[services]]\nname = "q"\nevery = "1h"\nprogram = "/bin/true"\nuser = "nix-da"\n'
    with pytest.raises(ConfigError, match="nix-da"):
        host_services.targets(written(tmp_path, text))


def test_a_file_without_services_adds_none(tmp_path: Path) -> None:
    """As most are."""
    assert host_services.targets(written(tmp_path, 'root = "/virtual"\n')) == ()
