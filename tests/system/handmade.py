"""Small trees made by hand, with real programs of this host, and one that says how it was started."""

import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
VIRT = REPOSITORY / "bin" / "virt"

PROBE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int argc, char **argv) {
    sigset_t blocked;
    char here[4096];
    struct sigaction found;
    printf("argv");
    for (int i = 0; i < argc; i++) printf(" [%s]", argv[i]);
    printf("\nfds");
    for (int i = 0; i < 1024; i++) if (fcntl(i, F_GETFD) >= 0) printf(" %d", i);
    printf("\nignored");
    for (int i = 1; i < 65; i++)
        if (!sigaction(i, NULL, &found) && found.sa_handler != SIG_DFL) printf(" %d", i);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    printf("\nblocked");
    for (int i = 1; i < 65; i++) if (sigismember(&blocked, i) == 1) printf(" %d", i);
    printf("\numask %04o\ncwd %s\n", umask(0), getcwd(here, sizeof here));
    fflush(stdout);
    return 7;
}
"""


def tree(folder: Path, *programs: str) -> Path:
    """Make folder a tree with those host programs, their libraries, accounts and nothing else."""
    for name in ("bin", "etc", "tmp", "home/bob"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in programs:
        found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        assert found is not None, name
        _copy(Path(found), folder / "bin" / name)
        for library in _libraries(found):
            _copy(library, folder / str(library).lstrip("/"))
    (folder / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nbob:x:1234:1234:Bob:/home/bob:/bin/bobsh\n"
    )
    (folder / "etc/group").write_text(
        "root:x:0:\nbob:x:1234:\nwww:x:2033:ann,bob\nftp:x:2050:ann\n"
    )
    (folder / "etc/hostname").write_text(f"{folder.name}\n")
    return folder


def probe(folder: Path) -> Path:
    """Compile the probe, statically, as /bin/probe of the tree."""
    target = folder / "bin" / "probe"
    subprocess.run(
        ["gcc", "-static", "-O1", "-w", "-x", "c", "-o", str(target), "-"],
        input=PROBE,
        text=True,
        check=True,
    )
    return target


def virt(*words: str, root: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run bin/virt of this checkout with that root, and that much environment."""
    if root is not None:
        env["VIRT_ROOT"] = str(root)
    return subprocess.run(
        [str(VIRT), *words],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _libraries(program: str) -> list[Path]:
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return [Path(word) for word in told.split() if word.startswith("/")]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(os.path.realpath(source), target)
        target.chmod(0o755)
