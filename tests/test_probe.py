"""The values of `virt test`: hashes, accounts, and what is shown of a hostile answer."""

import pytest

from virttools.probe import accounts
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


def test_what_a_program_says_cannot_steer_a_terminal() -> None:
    """Control characters and what turns text round are question marks; a long text is cut."""
    assert printable("530 \x1b[2Jno\r\n\u202ethere") == "530 ?[2Jno ?there"
    assert len(printable("x" * 10_000)) == 301
