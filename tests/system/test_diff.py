"""`virt diff`: every form an image can have is the tree it was made of, and what was changed is named."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.calls import Virt

MANIFEST = """
binaries = ["sh", "cat"]
directories = ["/etc", { path = "/tmp", mode = 0o1777 }, { path = "/srv", mode = 0o2775 }]
devices = ["null"]
symlinks = [{ path = "/etc/mtab", to = "../proc/self/mounts" }]
"""


@pytest.fixture(scope="module")
def virt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Virt]:
    """A domain, and an image of it in every format."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("virtual")
    folder.chmod(0o755)
    here = Virt(folder)
    (folder / ".manifest").write_text(MANIFEST)
    here.create("domain1.com", "-m", f"{folder}/.manifest")
    yield here
    here.good("remove", "--yes", "domain1.com")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.tar", "tar"), ("a.tar.gz", "tar"), ("a.tar.zst", "tar"), ("a.dir", "dir"), ("a.oci", "oci"),
        ("a.oci.tar", "oci-archive"), ("a.docker.tar", "docker-archive"),
    ],
)  # fmt: skip
def test_an_image_is_what_its_domain_is(virt: Virt, tmp_path: Path, name: str, kind: str) -> None:
    """Read back from each format, nothing differs: type, mode, owner, content, links, devices."""
    out = f"{tmp_path}/{name}"
    virt.good("image", "domain1.com", "-o", out, "--format", kind)
    done = virt("diff", "domain1.com", out)
    assert (done.status, done.out, done.err) == (0, "", "no difference\n")


def test_what_was_changed_is_named_and_ends_with_1(virt: Virt, tmp_path: Path) -> None:
    """Added, removed, other content, other mode: a line each, tab-separated in a pipe."""
    out = f"{tmp_path}/a.dir"
    virt.good("image", "domain1.com", "-o", out, "--format", "dir")
    Path(out, "etc/new\x1b").write_text("x")
    Path(out, "etc/mtab").unlink()
    Path(out, "srv").chmod(0o700)
    done = virt("diff", "domain1.com", out)
    assert (done.status, done.out) == (
        1,
        "-\t/etc/mtab\tsymlink\n+\t/etc/new\\x1b\tfile\n~\t/srv\tmode 2775 -> 0700\n",
    )
    assert done.err == "1 added, 1 removed, 1 changed\n"
    back = virt("diff", out, "domain1.com")
    assert "+\t/etc/mtab\tsymlink\n" in back.out


def test_tags_of_a_layout_are_told_apart(virt: Virt, tmp_path: Path) -> None:
    """PATH:TAG; a tag that is not there is named with those that are."""
    out = f"{tmp_path}/a.oci"
    other = tmp_path / "other.toml"
    other.write_text(MANIFEST + 'files = [{ from = "/etc/hostname", to = "/srv/name" }]\n')
    virt.good("image", "domain1.com", "-o", out, "--tag", "1")
    virt.good("image", "domain1.com", "-m", str(other), "-o", out, "--tag", "2")
    assert virt("diff", f"{out}:1", f"{out}:2").out == "+\t/srv/name\tfile\n"
    lost = virt("diff", f"{out}:1", f"{out}:3")
    assert (lost.status, lost.err) == (
        65,
        f"virt: cannot read {out}: it has no tag 3\nhint: there are 1, 2\n",
    )


def test_what_is_neither_domain_nor_image_is_said(virt: Virt, tmp_path: Path) -> None:
    """A name that nobody has is 68; a fifo or a device is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    assert virt("diff", "domain1.com", "domain9.com").status == 68
    assert virt("diff", "domain1.com", str(tmp_path / "pipe")).status == 65
    assert virt("diff", "domain1.com", "/dev/null").status == 65
