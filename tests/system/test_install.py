"""The four ways to have virttools: checkout, wheel in a venv, editable install, prefix of a system."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.system.handmade import REPOSITORY
from virttools import __version__

TEMPLATES = (
    "import importlib.resources, sys\n"
    "folder = importlib.resources.files('virttools') / 'templates'\n"
    "print(*sorted(entry.name for entry in folder.iterdir()))\n"
)


def run(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False, env=env
    )


def pip(python: Path, *words: object) -> None:
    """Install into python's environment, from nothing but what is here."""
    called = (sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index")
    done = run(*called, "--disable-pip-version-check", *words, **os.environ)
    assert done.returncode == 0, done.stderr


def venv(folder: Path) -> Path:
    """A fresh environment, whose dependencies are those of the one that runs the tests."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    packages = next(folder.glob("lib/python3*/site-packages"))
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python3"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    return next(folder.glob("*.whl"))


def check_commands(bin_folder: Path, links: Path) -> None:
    """Every command answers, by its own name and through a symlink from elsewhere."""
    told = run(bin_folder / "virt", "--version")
    assert (told.stdout, told.stderr, told.returncode) == (f"virt {__version__}\n", "", 0)
    assert run(bin_folder / "virtexec", "--help").stdout.startswith("Usage: virt exec ")
    assert run(bin_folder / "virtuald", "--help").stdout.startswith("Usage: virtuald ")
    assert "create" in run(bin_folder / "virtfs", "--help").stdout
    links.mkdir()
    for name, target in {"virtmailq": "virt", "virtvi": "virtexec", "virtuald": "virt"}.items():
        (links / name).symlink_to(bin_folder / target)
    for name in ("virtmailq", "virtvi"):
        named = run(links / name, "--version", VIRT_ROOT="/nonexistent")
        assert (named.returncode, named.stdout, named.stderr[:12]) == (125, "", "virt: cannot")
    assert run(links / "virtuald", "--help").stdout.startswith("Usage: virtuald ")


def test_a_checkout_runs_as_it_is(tmp_path: Path) -> None:
    """bin/virt works from the checkout, also started by a relative path and by `python -m`."""
    check_commands(REPOSITORY / "bin", tmp_path / "links")
    relative = subprocess.run(
        ["./virt", "--version"], cwd=REPOSITORY / "bin", capture_output=True, text=True, check=False
    )
    assert relative.stdout == f"virt {__version__}\n"
    module = run(sys.executable, "-m", "virttools", "--version", PYTHONPATH=str(REPOSITORY))
    assert (module.stdout, module.returncode) == (f"virt {__version__}\n", 0)


def test_a_wheel_runs_from_a_venv(wheel: Path, tmp_path: Path) -> None:
    """The wheel brings the commands and the templates, and needs no checkout."""
    python = venv(tmp_path / "venv")
    pip(python, wheel)
    check_commands(python.parent, tmp_path / "links")
    assert run(python, "-I", "-c", TEMPLATES).stdout.split() == templates()
    where = run(python, "-I", "-c", "import virttools; print(virttools.__file__)").stdout
    assert where.startswith(str(tmp_path))
    pages = sorted(page.name for page in (tmp_path / "venv/share/man").glob("man?/*"))
    assert pages == sorted(page.name for page in (REPOSITORY / "docs").glob("*.[1-8]"))


def test_an_editable_install_runs_the_checkout(tmp_path: Path) -> None:
    """`pip install -e .` serves the checkout's own modules and templates."""
    python = venv(tmp_path / "venv")
    pip(python, "--no-build-isolation", "--editable", REPOSITORY)
    check_commands(python.parent, tmp_path / "links")
    assert run(python, "-I", "-c", TEMPLATES).stdout.split() == templates()
    where = run(python, "-I", "-c", "import virttools; print(virttools.__file__)").stdout
    assert where.startswith(str(REPOSITORY))


def test_a_prefix_of_the_system_runs(wheel: Path, tmp_path: Path) -> None:
    """Where the interpreter lies elsewhere, the script finds package and interpreter by their version."""
    python = Path("/usr/bin/python3")
    if not python.exists():
        python = Path(sys.executable)
    pip(
        python, "--prefix", tmp_path / "opt", "--ignore-installed", "--break-system-packages", wheel
    )
    script = next(tmp_path.glob("opt/**/bin/virt"))
    assert run(script.parent / "virtuald", "--help").stdout.startswith("Usage: virtuald ")
    told = run(
        script, "exec", "--domain", "x", "true", VIRT_ROOT="/nonexistent", PATH="/usr/bin:/bin"
    )
    assert (told.returncode, told.stderr[:12]) == (125, "virt: cannot")


def test_scripts_of_the_wheel_are_the_launcher(wheel: Path) -> None:
    """All four commands are one file, and pip has not rewritten it."""
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        scripts = {
            name.rpartition("/")[2]: archive.read(name)
            for name in archive.namelist()
            if ".data/scripts/" in name
        }
    launcher = (REPOSITORY / "bin" / "virt").read_bytes()
    assert scripts == dict.fromkeys(("virt", "virtexec", "virtfs", "virtuald"), launcher)


@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("own", [None, "#!/bin/sh\nexit 0\n"])
@pytest.mark.parametrize("status", [0, 100])
def test_installing_packages_starts_no_daemon(tmp_path: Path, own: str | None, status: int) -> None:
    """While apt-get runs, policy-rc.d forbids it, then it is gone; a policy that was there stays as it was."""
    sbin, fakes = tmp_path / "sbin", tmp_path / "fakes"
    sbin.mkdir()
    fakes.mkdir()
    policy = sbin / "policy-rc.d"
    if own is not None:
        policy.write_text(own)
        policy.chmod(0o755)
    asked = f'[ "$1" = update ] || {{ status=0; /usr/sbin/policy-rc.d x || status=$?; echo $status; exit {status}; }}'
    for name, text in (("apt-get", f"{asked} >&2"), ("dpkg-query", "exit 1")):
        (fakes / name).write_text(f"#!/bin/sh\n{text}\n")
        (fakes / name).chmod(0o755)
    there = ("unshare", "--mount", "sh", "-euc", 'mount --bind "$0" /usr/sbin; exec "$@"', sbin)
    done = run(*there, REPOSITORY / "tests/install-packages", "x", PATH=f"{fakes}:/usr/bin:/bin")
    forbidden = 101 if own is None else 0
    assert (done.stderr, done.returncode) == (f"{forbidden}\n", status)
    assert (policy.read_text() if policy.exists() else None) == own


def templates() -> list[str]:
    return sorted(entry.name for entry in (REPOSITORY / "templates").iterdir())
