"""Debian packages, fetched by name: what excludes something that the tests need is unpacked, not installed."""

import subprocess
from pathlib import Path

import pytest

RETRIES = ("-o", "Acquire::Retries=5")
"""A mirror that hiccups is asked again."""


def fetched(folder: Path, *names: str) -> list[Path]:
    """These packages' files, in a folder; who cannot have them skips."""
    words = ["apt-get", "-qq", *RETRIES, "-o", "APT::Sandbox::User=root", "download", *names]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.deb"))
    if done.returncode or len(found) < len(set(names)):
        pytest.skip(f"needs the packages {names}: {done.stderr[-300:]}")
    return found
