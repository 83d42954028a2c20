"""The values of `virt test`: hashes, accounts, and what is shown of a hostile answer."""

import os
from pathlib import Path

import pytest

from virttools.manifest.model import ProbeKind
from virttools.probe import accounts, causes
from virttools.probe.crypt import hashed
from virttools.probe.outcome import printable

# Of Drepper's specification, and of crypt(3).
HASHES = (
    ("Hello world!", "saltstring", 5000,
     "svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"),
    ("Hello world!", "saltstringsaltst", 10000,
     "OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."),
)  # fmt: skip


@pytest.mark.parametrize(("password", "salt", "rounds", "expected"), HASHES)
def test_hashes_are_those_of_crypt(password: str, salt: str, rounds: int, expected: str) -> None:
    """What a tree's PAM will compare with."""
    assert hashed(password, salt, rounds) == f"$6$rounds={rounds}${salt}${expected}"


def test_an_account_takes_no_name_and_no_number_that_is_there() -> None:
    """However the tree's own files look."""
    passwd = b"virttest1:x:59999:59999::/:/bin/sh\nbroken\n::::"
    found = accounts.added(passwd, b"", b"virttest2:x:59998:", 0, "secret", "salt")
    assert (found.login.name, found.uid) == ("virttest3", 59997)
    assert found.passwd.endswith(
        b"\n::::\nvirttest3:x:59997:59997:virt test:/home/virttest3:/bin/sh\n"
    )
    assert found.shadow.startswith(b"virttest3:$6$rounds=1000$salt$")


TREE = {
    "etc/passwd": "ann:x:1001:1001::/home/ann:/bin/sh\nbob:x:1002:1002::/home/bob:/bin/sh\n"
    "eve:x:1003:1003::/home/eve:/bin/sh\n",
    "etc/shadow": "ann:!:1::::::\nbob:$6$x$y:1::::::\neve::1::::::\n",
}


@pytest.mark.parametrize(
    ("kind", "name", "what", "mend"),
    [
        (ProbeKind.POP, "fred", "d1.example has no user fred", "useradd --create-home fred"),
        (ProbeKind.POP, "\udcff", "d1.example has no user \udcff", r"useradd --create-home $'\xff'"),
        (ProbeKind.POP, "ann", "ann of d1.example has no password, or a locked one", "passwd ann"),
        (ProbeKind.POP, "eve", "eve of d1.example has an empty password", "passwd eve"),
        (ProbeKind.POP, "bob", "the password is not that of bob in d1.example", "passwd bob"),
        (ProbeKind.FTP, "bob", "bob has no home directory /home/bob",
         "install -d -m 0750 -o 1002 -g 1002 /home/bob"),
        (ProbeKind.FTP, "eve", "/home/eve belongs to the user {mine}, and eve may not enter",
         "chown 1003:1003 /home/eve"),
    ],
)  # fmt: skip
def test_why_a_user_is_not_let_in(
    tmp_path: Path, kind: ProbeKind, name: str, what: str, mend: str
) -> None:
    """Cause and mending command, from what the tree says."""
    for path, text in TREE.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "home/eve").mkdir(mode=0o700, parents=True)
    tree_fd = os.open(tmp_path, os.O_PATH)
    place = causes.Place(tree_fd, "virt", "d1.example", str(tmp_path))
    found = next(causes.of_login(place, kind, name, is_denied=True))
    os.close(tree_fd)
    assert found.what == what.format(mine=os.getuid())
    assert found.mend == f"virt exec --domain d1.example -- {mend}"


def test_what_a_program_says_cannot_steer_a_terminal() -> None:
    """Control characters and what turns text round are question marks; a long text is cut."""
    assert printable("530 \x1b[2Jno\r\n\u202ethere") == "530 ?[2Jno ?there"
    assert len(printable("x" * 10_000)) == 301
    assert printable("530 no s3cret for bob", "s3cret") == "530 no (the password) for bob"
