"""Images by another version of Python, with another zlib: the same bytes."""

import os
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.system import ground
from tests.system.calls import Virt
from tests.system.fetching import RETRIES
from tests.system.handmade import REPOSITORY

RELEASE = "trixie"
PACKAGES = (
    "python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib", "libc6", "zlib1g", "libexpat1",
    "libbz2-1.0", "liblzma5", "libffi8", "libssl3t64", "libzstd1", "libuuid1", "libsqlite3-0",
)  # fmt: skip


@pytest.fixture
def trixie(tmp_path: Path) -> Path:
    """A folder with the Python of Debian 13 and what it loads."""
    apt = [
        "apt-get", "-qq", *RETRIES, "-o", "APT::Sandbox::User=root",
        "-o", f"Dir::Etc::sourcelist={tmp_path}/sources.list", "-o", "Dir::Etc::sourceparts=-",
        "-o", f"Dir::State::lists={tmp_path}/lists", "-o", f"Dir::Cache={tmp_path}/cache",
    ]  # fmt: skip
    targets = [
        "apt-get",
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Codename: bookworm",
        "Created-By: Packages",
    ]
    (mirror, *_) = subprocess.run(
        targets, capture_output=True, text=True, check=True
    ).stdout.split()
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (tmp_path / "sources.list").write_text(f"deb [signed-by={keys}] {mirror} {RELEASE} main\n")
    (tmp_path / "lists/partial").mkdir(parents=True)
    (tmp_path / "debs").mkdir()
    top = tmp_path / RELEASE
    for name in (
        "usr/bin",
        "usr/lib",
        "usr/lib64",
        "usr/sbin",
        "proc",
        "dev",
        "out",
        "code",
        "virtual",
    ):
        (top / name).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (top / name).symlink_to(f"usr/{name}")
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *PACKAGES], cwd=tmp_path / "debs", check=True)
    for deb in sorted((tmp_path / "debs").iterdir()):
        tar = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(deb)], stdout=subprocess.PIPE, check=True
        )
        # dpkg-deb -x would put a folder in the place of the link lib.
        unpack = ["tar", "-x", "-C", str(top), "--keep-directory-symlink"]
        subprocess.run(unpack, input=tar.stdout, check=True)
    return top


def test_another_version_of_python_makes_the_same_image(
    virt: Virt, trixie: Path, tmp_path: Path
) -> None:
    """What is written rests on no version's tarfile, json, repr or zlib."""
    virt.good("create", "domain1.com")
    virt.good("image", "domain1.com", "-o", f"{tmp_path}/here.oci")
    ground.leave_mounts()
    libraries = sysconfig.get_paths()["purelib"]
    with (
        ground.mounted(trixie / "code", "--bind", str(REPOSITORY)),
        ground.mounted(trixie / "virtual", "--bind", str(virt.root)),
        ground.mounted(trixie / "dev", "--bind", "/dev"),
        ground.mounted(trixie / "proc", "-t", "proc", "none"),
    ):
        (trixie / "libraries").mkdir()
        with ground.mounted(trixie / "libraries", "--bind", libraries):
            version = python(trixie, "-c", "import sys; print(sys.version_info[:2])")
            python(
                trixie, "-m", "virttools", "--root", "/virtual", "image", "domain1.com", "-o", "/out/there.oci"
            )  # fmt: skip
    assert version == "(3, 13)\n"
    assert contents(trixie / "out/there.oci") == contents(tmp_path / "here.oci")


def python(top: Path, *words: str) -> str:
    """What the other Python says, in its own root."""
    env = {"PATH": "/usr/bin", "PYTHONPATH": "/code:/libraries", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["/usr/sbin/chroot", str(top), "/usr/bin/python3.13", *words],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(layout: Path) -> dict[str, bytes]:
    return {
        os.path.relpath(path, layout): path.read_bytes() for path in sorted(layout.rglob("*")) if path.is_file()
    }  # fmt: skip
