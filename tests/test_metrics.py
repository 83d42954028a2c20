"""The Prometheus text file, read back by a strict parser of its format (version 0.0.4)."""

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given

from tests.test_status import WHOLE, statuses
from virttools.errors import ApplyError
from virttools.serve import metrics
from virttools.serve.status import Served, Status

Sample = tuple[str, tuple[tuple[str, str], ...]]
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(,|$)')
LINE = re.compile(rf"({NAME})(?:\{{(.*)\}})? ([0-9]+(?:\.[0-9]+)?)")


def read(text: str) -> dict[Sample, float]:
    """Every sample by name and labels; what the format does not allow fails."""
    assert text.endswith("\n")
    found: dict[Sample, float] = {}
    kinds: dict[str, str] = {}
    named = ""
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            _, _, named, told = line.split(" ", 3)
            assert told
            assert named not in kinds, f"{named} is not in one group"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == named
            assert kind in ("counter", "gauge")
            assert (kind == "counter") == name.endswith("_total")
            kinds[name] = kind
        else:
            match = LINE.fullmatch(line)
            assert match, line
            assert match[1] == named
            sample = match[1], tuple(labels(match[2] or ""))
            assert sample not in found, f"{line} twice"
            found[sample] = float(match[3])
    return found


def labels(text: str) -> list[tuple[str, str]]:
    found, end = [], 0
    while end < len(text):
        match = LABEL.match(text, end)
        assert match, text
        value = re.sub(r'\\([\\"n])', lambda it: "\n" if it[1] == "n" else it[1], match[2])
        found.append((match[1], value))
        end = match.end()
    return found


def sample(name: str, **of: str) -> Sample:
    return f"virt_serve_{name}", tuple(of.items())


def test_every_counter_is_told() -> None:
    """By service and domain, refusals by reason."""
    found = read(metrics.text(WHOLE))
    ftp = {"service": "ftp", "domain": "domain1.com"}
    expected = {
        sample("info", version="0.1.0"): 1,
        sample("uptime_seconds"): 86_400,
        sample("reloads_total", result="refused"): 1,
        sample("unrouted_total"): 5,
        sample("connections", **ftp): 2,
        sample("served_total", **ftp): 40,
        sample("failed_total", **ftp): 1,
        sample("refused_total", **ftp, reason="per_source"): 12,
        sample("runs_total", command="queue", domain="domain1.com"): 7,
        sample("failed_runs_total", command="queue", domain="domain2.com"): 2,
        sample("daemon_up", daemon="nginx", domain="domain1.com"): 1,
        sample("daemon_up", daemon="nginx", domain="domain2.com"): 0,
        sample("daemon_restarts_total", daemon="nginx", domain="domain1.com"): 2,
    }
    assert {key: found[key] for key in expected} == expected


def test_a_name_cannot_forge_a_sample() -> None:
    """Quotes, line ends and backslashes come back as they were."""
    evil = 'x"} 1\nvirt_serve_spawners 99 # \\n\\'
    whole = Status(
        version="0", pid=1, uptime=1, spawners=2, served=(Served(service=evil, domain="d", live=3),)
    )
    found = read(metrics.text(whole))
    assert found[sample("connections", service=evil, domain="d")] == 3
    assert found[sample("spawners")] == 2


@given(statuses)
def test_any_status_is_in_the_format(whole: Status) -> None:
    """With names of any text; those that stand there twice aside."""
    pairs = {(one.service, one.domain) for one in whole.served}
    jobs = {(one.command, one.domain) for one in whole.periodic}
    if len(pairs) == len(whole.served) and len(jobs) == len(whole.periodic):
        read(metrics.text(whole))


def test_who_reads_while_it_is_written_reads_a_whole_file(tmp_path: Path) -> None:
    """The old one or the new one, for others to read, and nothing beside it."""
    path = tmp_path / "virt.prom"
    small = Status(version="0", pid=1, uptime=1, spawners=1)
    texts = {metrics.text(small), metrics.text(WHOLE)}
    metrics.write(str(path), small)
    done = threading.Event()
    seen: set[str] = set()

    def look() -> None:
        seen.add(path.read_text())
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=look)
    reader.start()
    for number in range(300):
        metrics.write(str(path), WHOLE if number % 2 else small)
    done.set()
    reader.join()
    assert seen
    assert seen <= texts
    assert os.listdir(tmp_path) == ["virt.prom"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_what_is_planted_is_neither_followed_nor_left(tmp_path: Path) -> None:
    """A link in place of the file, or of the new one that is being written, is replaced."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "virt.prom").symlink_to(victim)
    metrics.write(str(tmp_path / "virt.prom"), WHOLE)
    assert not (tmp_path / "virt.prom").is_symlink()
    (tmp_path / f".virt.prom.{os.getpid()}").symlink_to(victim)
    metrics.write(str(tmp_path / "virt.prom"), WHOLE)
    assert victim.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["victim", "virt.prom"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the new one cannot be put in its place, nothing is left beside."""
    (tmp_path / "virt.prom").mkdir()
    with pytest.raises(ApplyError, match=r"cannot write .*: Is a directory"):
        metrics.write(str(tmp_path / "virt.prom"), WHOLE)
    assert os.listdir(tmp_path) == ["virt.prom"]
