"""Images of real trees: taken by the programs that others use, the same from everywhere, and never half."""

import hashlib
import json
import os
import pty
import random
import signal
import stat
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system import ground
from tests.system.calls import VIRT, Done, Virt

SMALL = """
binaries = ["sh", "cat", "id"]
directories = ["/etc", "/run/lock", { path = "/tmp", mode = 0o1777 }, { path = "/srv/in", mode = 0o2775, group = "www" }]
devices = ["null"]
users = [{ name = "web", uid = 1001, group = "www" }]
groups = [{ name = "www", gid = 1002 }]
[etc]
skeleton = ["passwd", "group"]
[image]
entrypoint = ["/bin/sh", "-c"]
cmd = ["id -u; id -g; echo $GREETING; pwd"]
env = ["GREETING=hello there"]
user = "web:www"
workdir = "/srv/in"
ports = ["80"]
labels = ["org.example.tier=web"]
annotations = ["org.opencontainers.image.licenses=MIT"]
stop_signal = "SIGQUIT"
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A manifest that builds in a moment."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return str(file)


def ran(*words: str, check: bool = True) -> str:
    """What another program says."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def blob(layout: Path, digest: str) -> bytes:
    return (layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes()


def documents(layout: Path, tag: str = "latest") -> tuple[Any, Any]:
    """Manifest and configuration of an image."""
    index = json.loads((layout / "index.json").read_bytes())
    (entry,) = [
        one
        for one in index["manifests"]
        if one.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    ]
    manifest = json.loads(blob(layout, entry["digest"]))
    return manifest, json.loads(blob(layout, manifest["config"]["digest"]))


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Every path below a folder, with type, mode, owner, content or target, number, attributes and inode mates."""
    found: dict[str, tuple[object, ...]] = {}
    names: dict[int, list[str]] = {}
    for path in sorted(top.rglob("*")):
        seen = path.lstat()
        kind = stat.S_IFMT(seen.st_mode)
        content: object = None
        if kind == stat.S_IFREG:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            if seen.st_nlink > 1:
                names.setdefault(seen.st_ino, []).append(str(path.relative_to(top)))
        elif kind == stat.S_IFLNK:
            content = path.readlink()
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            content = seen.st_rdev
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        found[str(path.relative_to(top))] = (
            kind, oct(seen.st_mode & 0o7777), seen.st_uid, seen.st_gid, content, attributes,
        )  # fmt: skip
    links = sorted(tuple(sorted(one)) for one in names.values() if len(one) > 1)
    return {**found, "(links)": tuple(links)}


def without_store(found: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """What a tree has and an image has not: the log socket."""
    return {path: one for path, one in found.items() if path != "dev/log"}


EVERY_KIND = """
profiles = []
binaries = ["sh", "ls", "bzip2", "bunzip2", "passwd", "su", "chage"]
setuid = ["/usr/bin/passwd", "/usr/bin/su", "/usr/bin/chage"]
directories = [
  "/mnt", "/srv", "/usr/local/bin", "/var/log",
  { path = "/proc", mode = 0o555 }, { path = "/root", mode = 0o700 }, { path = "/tmp", mode = 0o1777 },
  { path = "/var/mail", mode = 0o2775, group = "mail" },
]
symlinks = [{ path = "/var/run", to = "/run" }, { path = "/var/spool/mail", to = "../mail" }]
devices = ["null", "full", "tty"]
templates = [{ from = "empty.j2", to = "/run/utmp", mode = 0o664, group = "utmp" }]
users = [{ name = "root", uid = 0 }]
groups = [{ name = "root", gid = 0 }, { name = "mail", gid = 8 }, { name = "shadow", gid = 42 }, { name = "utmp", gid = 43 }]
[etc]
skeleton = ["passwd", "group", "shadow"]
"""


@pytest.fixture
def domain(virt: Virt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """domain1.com: set-id programs, hard links, device nodes; and a file with capabilities."""
    manifest = tmp_path_factory.mktemp("manifest") / "domain1.toml"
    manifest.write_text(EVERY_KIND)
    virt.create("domain1.com", "-m", str(manifest))
    tree = virt.tree("domain1.com")
    ping = tree / "usr/local/bin/ping"
    ping.write_bytes(b"\x7fELF")
    subprocess.run(["setcap", "cap_net_raw+ep", str(ping)], check=True)
    os.setxattr(tree / "srv", "user.note", b"caf\xe9\0")
    return tree


class TestWhoTakesThem:
    """skopeo, umoci, podman, runc, tar, unsquashfs and sha256sum."""

    @pytest.mark.usefixtures("domain")
    def test_skopeo_reads_and_copies_every_form(self, virt: Virt, tmp_path: Path) -> None:
        """A layout, an archive of it and docker's: the same image."""
        virt.good("image", "domain1.com", "-o", f"{tmp_path}/a.oci", "-t", "1.0", "-t", "latest")
        virt.good(
            "image", "domain1.com", "-o", f"{tmp_path}/a.tar", "-f", "oci-archive", "-t", "1.0"
        )
        virt.good("image", "domain1.com", "-o", f"{tmp_path}/d.tar", "-f", "docker-archive")
        seen = [
            json.loads(ran("skopeo", "inspect", name))
            for name in (
                f"oci:{tmp_path}/a.oci:1.0", f"oci:{tmp_path}/a.oci:latest", f"oci-archive:{tmp_path}/a.tar:1.0",
            )
        ]  # fmt: skip
        assert len({one["Digest"] for one in seen}) == 1
        assert {one["Architecture"] for one in seen} == {"amd64"}
        ran(
            "skopeo", "copy", f"oci:{tmp_path}/a.oci:1.0", f"docker-archive:{tmp_path}/copy.tar:a:1"
        )
        config = json.loads(
            ran("skopeo", "inspect", "--config", f"docker-archive:{tmp_path}/d.tar")
        )
        assert config["rootfs"] == documents(tmp_path / "a.oci")[1]["rootfs"]

    def test_umoci_unpacks_the_very_tree(self, virt: Virt, domain: Path, tmp_path: Path) -> None:
        """Type, mode, owner, content, target, device, attributes and hard links of every entry."""
        layout = tmp_path / "a.oci"
        virt.good(
            "image", "domain1.com", "-o", str(layout), "--attach", "spdx", "--attach", "cyclonedx"
        )
        ran("umoci", "unpack", "--image", f"{layout}:latest", f"{tmp_path}/bundle")
        wanted = without_store(described(domain))
        # Of a run only folders; of the store's links only those between two names in the tree.
        wanted = {path: one for path, one in wanted.items() if path != "run/utmp"}
        assert described(tmp_path / "bundle/rootfs") == wanted

    def test_a_folder_and_a_tar_and_a_squashfs_are_the_tree_too(
        self, virt: Virt, domain: Path, tmp_path: Path
    ) -> None:
        """By rename, by GNU tar, by unsquashfs."""
        wanted = without_store(described(domain))
        del wanted["run/utmp"]
        virt.good("image", "domain1.com", "-o", f"{tmp_path}/dir", "-f", "dir")
        assert described(tmp_path / "dir") == wanted
        virt.good(
            "image", "domain1.com", "-o", f"{tmp_path}/a.tar.gz", "--checksums", f"{tmp_path}/SUMS"
        )
        (tmp_path / "tar").mkdir()
        ran(
            "tar",
            "-xzf",
            f"{tmp_path}/a.tar.gz",
            "-C",
            f"{tmp_path}/tar",
            "--xattrs",
            "--xattrs-include=*",
        )
        assert described(tmp_path / "tar") == wanted
        done = subprocess.run(
            ["sha256sum", "--check", "--strict", "--quiet", f"{tmp_path}/SUMS"], cwd=tmp_path / "tar", check=False
        )  # fmt: skip
        assert done.returncode == 0
        virt.good("image", "domain1.com", "-o", f"{tmp_path}/a.squashfs")
        ran("unsquashfs", "-no-progress", "-d", f"{tmp_path}/sq", f"{tmp_path}/a.squashfs")
        assert described(tmp_path / "sq") == wanted

    def test_a_container_runs_as_the_manifest_says(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """User, group, environment, working directory and command, by runc."""
        layout = tmp_path / "a.oci"
        virt.good("image", "-m", small, "-o", str(layout))
        bundle = tmp_path / "bundle"
        ran("umoci", "unpack", "--image", f"{layout}:latest", str(bundle))
        assert contained(bundle, tmp_path) == "1001\n1002\nhello there\n/srv/in\n"
        manifest, config = documents(layout)
        assert manifest["annotations"]["org.opencontainers.image.licenses"] == "MIT"
        assert config["config"]["ExposedPorts"] == {"80/tcp": {}}
        assert config["config"]["Labels"] == {"org.example.tier": "web"}
        assert config["config"]["StopSignal"] == "SIGQUIT"

    def test_podman_loads_them(self, virt: Virt, small: str, tmp_path: Path) -> None:
        """From docker's form, with its name, into a store of the test's own; its paths must be short."""
        virt.good(
            "image",
            "web.example.org",
            "-m",
            small,
            "-o",
            f"{tmp_path}/d.tar",
            "-f",
            "docker-archive",
        )
        with tempfile.TemporaryDirectory(dir="/var/tmp") as store:
            podman = [
                "podman", "--root", f"{store}/s", "--runroot", f"{store}/r", "--tmpdir", f"{store}/t",
                "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs",
            ]  # fmt: skip
            ran(*podman, "load", "-i", f"{tmp_path}/d.tar")
            assert "web.example.org" in ran(*podman, "images", "--format", "{{.Repository}}")
            ran(*podman, "rmi", "--all")


def contained(bundle: Path, tmp_path: Path) -> str:
    """What a bundle's process says, run by runc with what this machine lets it have."""
    file = bundle / "config.json"
    config = json.loads(file.read_text())
    config["process"]["terminal"] = False
    config["process"].pop("rlimits", None)
    config["linux"]["namespaces"] = [
        one for one in config["linux"]["namespaces"] if one["type"] != "cgroup"
    ]
    file.write_text(json.dumps(config))
    name = f"virttools-test-{os.getpid()}"
    return ran("runc", "--root", f"{tmp_path}/runc", "run", "--bundle", str(bundle), name)


class TestReproducible:
    """Equal input makes equal bytes."""

    def test_neither_who_nor_where_nor_when_matters(
        self, virt: Virt, small: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Umask, time zone, locale, hash seed, folder, root of the trees, and a store that was empty."""
        found = set()
        for number, env in enumerate(
            (
                {},
                {"TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "7"},
                {"TZ": "America/New_York", "LANG": "tr_TR.UTF-8", "TMPDIR": str(tmp_path)},
            )
        ):
            here = tmp_path_factory.mktemp(f"here{number}")
            here.chmod(0o755)
            masked = ["sh", "-c", f'umask 0{number}77; exec "$0" "$@"', str(VIRT)]
            words = [*masked, "--root", str(here), "image", "-m", small, "-o", f"{here}/a.oci"]
            subprocess.run(words, env={**virt.environment(env)}, check=True, capture_output=True)
            found.add((here / "a.oci/index.json").read_bytes())
        assert len(found) == 1

    def test_two_builds_are_compared_on_request(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """And the image is the same as without."""
        virt.good("image", "-m", small, "-o", f"{tmp_path}/a.tar")
        virt.good("image", "-m", small, "-o", f"{tmp_path}/b.tar", "--check-reproducible")
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()

    def test_times_are_clamped(self, virt: Virt, small: str, tmp_path: Path) -> None:
        """Nothing is later than SOURCE_DATE_EPOCH, what is older stays; without it all is 1970."""
        old = tmp_path / "old"
        old.write_text("old")
        os.utime(old, (1000, 1000))
        file = Path(small)
        file.write_text(f'files = [{{ from = "{old}", to = "/srv/old" }}]\n' + file.read_text())
        env = {"SOURCE_DATE_EPOCH": "1600000000"}
        assert virt("image", "-m", small, "-o", f"{tmp_path}/a.tar", env=env).status == 0
        with tarfile.open(f"{tmp_path}/a.tar") as archive:
            times = {member.name: member.mtime for member in archive}
        assert (times["srv/old"], times["etc/passwd"]) == (1000, 1600000000)
        virt.good("image", "-m", small, "-o", f"{tmp_path}/a.tar")
        with tarfile.open(f"{tmp_path}/a.tar") as archive:
            assert {member.mtime for member in archive} == {0}
        bad = virt(
            "image", "-m", small, "-o", f"{tmp_path}/a.tar", env={"SOURCE_DATE_EPOCH": "now"}
        )
        assert (bad.status, "seconds since 1970" in bad.err) == (2, True)

    def test_what_differs_is_named(self, virt: Virt, small: str, tmp_path: Path) -> None:
        """A hook that writes the time: status 1, and the path."""
        hook = tmp_path / "hook"
        hook.write_text('#!/bin/sh\ndate +%N > "$VIRT_TREE/srv/built"\n')
        hook.chmod(0o755)
        file = Path(small)
        file.write_text(f'hooks = [{{ phase = "built", run = ["{hook}"] }}]\n' + file.read_text())
        done = virt("image", "-m", small, "-o", f"{tmp_path}/a.oci", "--check-reproducible")
        assert (done.status, "/srv/built differs between two builds in sha256" in done.err) == (
            1,
            True,
        )
        assert not (tmp_path / "a.oci").exists()


class TestLayouts:
    """Tags, architectures, layers and what is thrown away."""

    def test_images_of_one_profile_share_its_layer(self, virt: Virt, tmp_path: Path) -> None:
        """And a container of both has all files: the layers together are the tree."""
        layout = tmp_path / "both.oci"
        for name, more in (("one", "/srv/one"), ("two", "/srv/two")):
            file = tmp_path / f"{name}.toml"
            file.write_text(
                f'profiles = ["base"]\ndirectories = ["{more}"]\n[image]\nlayers = "profile"\n'
            )
            virt.good("image", "-m", str(file), "-o", str(layout), "--tag", name)
        first, second = (documents(layout, name)[0]["layers"] for name in ("one", "two"))
        assert first[0]["digest"] == second[0]["digest"]
        assert first[1]["digest"] != second[1]["digest"]
        assert first[0]["size"] > 100 * first[1]["size"] / 2
        ran("umoci", "unpack", "--image", f"{layout}:two", f"{tmp_path}/bundle")
        virt.good("image", "-m", f"{tmp_path}/two.toml", "-o", f"{tmp_path}/dir", "-f", "dir")
        assert described(tmp_path / "bundle/rootfs") == described(tmp_path / "dir")

    def test_an_image_for_another_architecture_stands_beside(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """One tag, an index of both; skopeo chooses by architecture."""
        layout = tmp_path / "a.oci"
        for arch in ("amd64", "arm64", "amd64"):
            virt.good("image", "-m", small, "-o", str(layout), "--arch", arch)
        for arch in ("amd64", "arm64"):
            seen = json.loads(
                ran("skopeo", "--override-arch", arch, "inspect", f"oci:{layout}:latest")
            )
            assert seen["Architecture"] == arch
        assert len(json.loads((layout / "index.json").read_bytes())["manifests"]) == 1
        done = virt("image", "-m", small, "-o", str(layout), "--arch", "vax")
        assert (done.status, "there are 386, amd64" in done.err) == (2, True)

    def test_nothing_changed_is_told_and_a_layer_is_not_packed_again(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """--exit-code is 1 for a new image and 0 for the same; old blobs go."""
        layout = tmp_path / "a.oci"
        words = ("image", "-m", small, "-o", str(layout), "--exit-code")
        assert virt(*words).status == 1
        blobs = {path.name: path.stat().st_ino for path in (layout / "blobs/sha256").iterdir()}
        done = virt(*words)
        assert (done.status, "as it was" in done.out) == (0, True)
        assert {
            path.name: path.stat().st_ino for path in (layout / "blobs/sha256").iterdir()
        } == blobs
        Path(small).write_text(SMALL.replace("hello there", "good bye"))
        assert virt(*words).status == 1
        left = {path.name for path in (layout / "blobs/sha256").iterdir()}
        assert (len(left), len(left & set(blobs))) == (3, 1)  # the layer is the same one

    def test_a_file_that_only_looks_unchanged_is_seen(
        self, virt: Virt, domain: Path, tmp_path: Path
    ) -> None:
        """Same size, same time, other bytes: contents are what counts."""
        layout = tmp_path / "a.oci"
        page = domain / "srv/page"
        page.write_text("one")
        os.utime(page, (5, 5))
        virt.good("image", "domain1.com", "-o", str(layout))
        page.write_text("two")
        os.utime(page, (5, 5))
        assert virt("image", "domain1.com", "-o", str(layout), "--exit-code").status == 1
        ran("umoci", "unpack", "--image", f"{layout}:latest", f"{tmp_path}/bundle")
        assert (tmp_path / "bundle/rootfs/srv/page").read_text() == "two"

    def test_a_damaged_layer_is_made_anew(self, virt: Virt, small: str, tmp_path: Path) -> None:
        """A blob is believed by its digest, not by its name."""
        layout = tmp_path / "a.oci"
        virt.good("image", "-m", small, "-o", str(layout))
        digest = documents(layout)[0]["layers"][0]["digest"]
        path = layout / "blobs/sha256" / digest.removeprefix("sha256:")
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        virt.good("image", "-m", small, "-o", str(layout))
        assert path.read_bytes() == whole


class TestNothingHalf:
    """Secrets, places that are taken, full disks, kills: an image is there whole or not at all."""

    def test_a_secret_fails_the_build_with_file_line_and_operation(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """Nothing is written, and no domain stays behind."""
        ran("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{tmp_path}/key")
        key = tmp_path / "notes"
        key.write_text("see below\n" + (tmp_path / "key").read_text())
        file = Path(small)
        file.write_text(f'files = [{{ from = "{key}", to = "/srv/notes" }}]\n' + file.read_text())
        done = virt("image", "-m", small, "-o", f"{tmp_path}/a.oci")
        assert done.status == 65
        (line,) = [line for line in done.err.splitlines() if "srv/notes" in line]
        assert "srv/notes:2: " in line
        assert "(operation " in line
        assert not (tmp_path / "a.oci").exists()
        assert staging(virt) == []

    def test_a_domain_with_passwords_is_not_given_away(
        self, virt: Virt, domain: Path, tmp_path: Path
    ) -> None:
        """What people put into it since: the hash is named, the manifest is the way."""
        with (domain / "etc/shadow").open("a") as shadow:
            shadow.write("eve:$6$abcdefgh$" + "A" * 86 + ":19000:0:99999:7:::\n")
        done = virt("image", "domain1.com", "-o", f"{tmp_path}/a.tar")
        assert (done.status, "etc/shadow" in done.err, "virt image -m FILE" in done.err) == (
            65,
            True,
            True,
        )
        assert not (tmp_path / "a.tar").exists()

    @pytest.mark.parametrize(
        "kind", ["oci", "dir", "tar", "oci-archive", "docker-archive", "squashfs"]
    )
    def test_what_is_there_and_is_no_image_stays(
        self, virt: Virt, small: str, tmp_path: Path, kind: str
    ) -> None:
        """A folder with things in it, a link, a fifo: 73 before anything is built, and it is as it was."""
        Path(small).write_text('binaries = ["nothing-here"]\n')
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "mine").write_text("mine")
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "victim")
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        for place in (folder, link, fifo):
            done = virt("image", "-m", small, "-o", str(place), "-f", kind)
            assert (done.status, "it is there already" in done.err) == (73, True), done.err
        assert (folder / "mine").read_text() == "mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "fifo",
            "folder",
            "link",
            "small.toml",
        ]

    def test_a_file_is_replaced_whole(self, virt: Virt, small: str, tmp_path: Path) -> None:
        """By a rename: who has the old one open reads the old one."""
        out = tmp_path / "a.tar"
        out.write_text("old")
        with out.open() as before:
            virt.good("image", "-m", small, "-o", str(out))
            assert before.read() == "old"
        assert tarfile.is_tarfile(out)

    @pytest.mark.parametrize("kind", ["oci", "dir", "tar", "oci-archive", "docker-archive"])
    def test_a_full_disk_leaves_nothing(
        self, virt: Virt, small: str, tmp_path: Path, kind: str
    ) -> None:
        """74, one sentence, and the disk is as it was."""
        ground.leave_mounts()
        with ground.mounted(tmp_path / "tiny", "-t", "tmpfs", "-o", "size=256k,mode=0755", "none"):
            done = virt("image", "-m", small, "-o", f"{tmp_path}/tiny/out", "-f", kind)
            assert (done.status, "No space left on device" in done.err) == (74, True), done.err
            assert "cannot read" not in done.err
            assert list((tmp_path / "tiny").iterdir()) == []

    def test_a_kill_at_any_moment_leaves_the_old_or_the_new(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """Skopeo reads the layout after each of them, and the next build sweeps what was left."""
        layout = tmp_path / "a.oci"
        virt.good("image", "-m", small, "-o", str(layout))
        dice = random.Random(4)
        for number in range(12):
            Path(small).write_text(SMALL.replace("hello there", f"hello {number}"))
            words = [str(VIRT), "image", "-m", small, "-o", str(layout), "-t", "latest"]
            child = subprocess.Popen(
                words, env=virt.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            time.sleep(dice.uniform(0.1, 0.6))
            child.send_signal(signal.SIGKILL)
            child.wait()
            ran("skopeo", "inspect", "--config", f"oci:{layout}:latest")
        virt.good("image", "-m", small, "-o", str(layout))
        assert staging(virt) == []
        assert virt.good("list") == ""


def staging(virt: Virt) -> list[str]:
    """What is left of builds."""
    folder = virt.root / ".virt/staging"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


class TestHostileTrees:
    """What a tenant may have planted."""

    def test_odd_things_are_taken_as_they_are(
        self, virt: Virt, domain: Path, tmp_path: Path
    ) -> None:
        """Names that are no text, long paths, holes, high ids, fifos; sockets are left out, nothing hangs."""
        srv = domain / "srv"
        odd = os.fsencode(srv) + b"/caf\xe9\n-rf"
        with open(odd, "w") as file:
            file.write("x")
        deep = srv
        for _ in range(40):
            deep /= "d" * 60
            subprocess.run(["mkdir", str(deep)], check=False) if len(
                str(deep)
            ) > 4000 else deep.mkdir()
        (srv / "holes").write_bytes(b"")
        os.truncate(srv / "holes", 3 << 20)
        os.chown(srv / "holes", 4_000_000_000, 3_999_999_999)
        os.mkfifo(srv / "fifo")
        (srv / "out").symlink_to("/etc/shadow")
        virt.good("image", "domain1.com", "-o", f"{tmp_path}/a.tar")
        (tmp_path / "tar").mkdir()
        ran(
            "tar",
            "-xf",
            f"{tmp_path}/a.tar",
            "-C",
            f"{tmp_path}/tar",
            "--xattrs",
            "--xattrs-include=*",
        )
        wanted = without_store(described(domain))
        del wanted["run/utmp"]
        assert described(tmp_path / "tar") == wanted

    def test_what_is_mounted_in_a_tree_is_refused(
        self, virt: Virt, domain: Path, tmp_path: Path
    ) -> None:
        """Another file system's content belongs to somebody else, and what it covers cannot be read."""
        ground.leave_mounts()
        with ground.mounted(domain / "mnt", "-t", "tmpfs", "none"):
            (domain / "mnt/secret").write_text("of another")
            done = virt("image", "domain1.com", "-o", f"{tmp_path}/a.tar")
        assert done.status == 75
        assert done.err.startswith(
            "virt: cannot put /mnt into an image: something is mounted there"
        )
        assert not (tmp_path / "a.tar").exists()

    def test_a_tree_that_changes_is_refused_or_whole(
        self, virt: Virt, domain: Path, tmp_path: Path
    ) -> None:
        """While somebody swaps files for links: 75, or an image of one state; never what lies outside."""
        outside = tmp_path / "outside"
        outside.write_text("never in an image")
        swapper = subprocess.Popen(
            [
                "python3", "-c",
                ("import os, sys, time\n"
                "end = time.monotonic() + 20\n"
                "while time.monotonic() < end:\n"
                "    open('swap.new', 'w').write('mine' * 50000); os.rename('swap.new', 'swap')\n"
                "    os.symlink(sys.argv[1], 'swap.link'); os.rename('swap.link', 'swap')\n"),
                str(outside),
            ],
            cwd=domain / "srv",
        )  # fmt: skip
        try:
            for number in range(12):
                done: Done = virt("image", "domain1.com", "-o", f"{tmp_path}/{number}.tar")
                assert done.status in (0, 75), done.err
                if done.status == 0:
                    assert b"never in an image" not in (tmp_path / f"{number}.tar").read_bytes()
        finally:
            swapper.kill()
            swapper.wait()


class TestTheCommand:
    """Words, pipes, terminals and JSON."""

    def test_standard_output_takes_an_archive_and_nothing_else(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """`virt image -m FILE -o - | tar t`; what is said goes to standard error."""
        done = subprocess.run(
            [str(VIRT), "image", "-m", small, "-o", "-"], env=virt.environment(), capture_output=True, check=True
        )  # fmt: skip
        virt.good("image", "-m", small, "-o", f"{tmp_path}/a.tar")
        assert done.stdout == (tmp_path / "a.tar").read_bytes()
        assert b"wrote -: tar" in done.stderr

    def test_a_reader_that_goes_away_ends_it_as_sigpipe_would(self, virt: Virt, small: str) -> None:
        """`virt image -m FILE -o - | head -c1`: 141, and not a word."""
        read_fd, write_fd = os.pipe()
        os.close(read_fd)
        done = subprocess.run(
            [str(VIRT), "-q", "image", "-m", small, "-o", "-"],
            env=virt.environment(), stdout=write_fd, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        os.close(write_fd)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")

    def test_a_terminal_gets_no_image(self, virt: Virt, small: str) -> None:
        """Status 2 and a hint."""
        master_fd, slave_fd = pty.openpty()
        done = subprocess.run(
            [str(VIRT), "image", "-m", small, "-o", "-"],
            env=virt.environment(), stdout=slave_fd, stderr=subprocess.PIPE, check=False,
        )  # fmt: skip
        os.close(slave_fd)
        os.close(master_fd)
        assert (done.returncode, b"to a terminal" in done.stderr) == (2, True)

    def test_json_tells_what_was_made(self, virt: Virt, small: str, tmp_path: Path) -> None:
        """Digests as skopeo has them."""
        data = virt.json("image", "-m", small, "-o", f"{tmp_path}/a.oci")
        seen = json.loads(ran("skopeo", "inspect", f"oci:{tmp_path}/a.oci:latest"))
        assert (data["digest"], [one["digest"] for one in data["layers"]], data["changed"]) == (
            seen["Digest"], seen["Layers"], True,
        )  # fmt: skip
        assert (
            data["layers"][0]["diff_id"]
            == documents(tmp_path / "a.oci")[1]["rootfs"]["diff_ids"][0]
        )

    def test_a_place_that_is_not_there_is_told_before_the_build(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """Also one of a document; and a slash behind OUT, as a shell completes it, hides no format."""
        absent = f"{tmp_path}/absent"
        done = virt("image", "-m", small, "-o", f"{tmp_path}/a.oci/", "--checksums", f"{absent}/x")
        assert (done.status, done.err) == (
            74,
            f"virt: cannot write {absent}/x: {absent}: No such file or directory\n",
        )
        assert not (tmp_path / "a.oci").exists()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("-o", "x.oci"), "neither a domain nor a manifest is named"),
            (("domain1.com",), "no OUT is named"),
            (("domain1.com", "-o", "x"), "cannot tell a format by the name x"),
            (("domain1.com", "-o", "x", "-f", "iso"), "there are tar, oci, "),
            (("domain1.com", "-o", "-", "-f", "oci"), "it is a folder"),
            (("domain1.com", "-o", "x.oci", "-t", "a:b"), "a tag is up to 128"),
            (("domain1.com", "-o", "x.tar", "--compression", "lzma"), "there are gzip, zstd, none"),
            (("domain1.com", "-o", "x.tar", "--attach", "spdx"), "only OCI images hold"),
            (("domain1.com", "-o", "x.oci", "--sbom", "x.json"), "ends neither in .spdx.json"),
            (("domain1.com", "-o", "x.tar", "--checksums", "./x.tar"), "goes there too"),
        ],
    )
    def test_a_call_that_makes_no_sense_is_status_2(
        self, virt: Virt, words: tuple[str, ...], said: str
    ) -> None:
        """One sentence, and nothing is made."""
        done = virt("image", *words)
        assert (done.status, said in done.err) == (2, True), done.err

    def test_a_user_that_the_tree_does_not_know_is_an_error(
        self, virt: Virt, small: str, tmp_path: Path
    ) -> None:
        """Before anything is written."""
        Path(small).write_text(SMALL.replace('"web:www"', '"nobody-here"'))
        done = virt("image", "-m", small, "-o", f"{tmp_path}/a.oci")
        assert (done.status, "whom the tree does not know" in done.err) == (78, True)
        assert not (tmp_path / "a.oci").exists()


def test_no_domain_is_left_behind(virt: Virt, small: str, tmp_path: Path) -> None:
    """Straight from a manifest: no tree, no record, no lock, no log socket."""
    virt.good("image", "site.example.org", "-m", small, "-o", f"{tmp_path}/a.oci")
    assert virt.good("list") == ""
    assert staging(virt) == []
    assert list((virt.root / ".virt/records").iterdir()) == []
    assert list((virt.root / ".virt/log").iterdir()) == []
    assert (
        documents(tmp_path / "a.oci")[0]["annotations"]["org.opencontainers.image.title"]
        == "site.example.org"
    )
