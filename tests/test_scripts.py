"""A script's interpreter is the one the kernel and env would start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.host.scripts import Interpreter, interpreter


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"#!/bin/sh\necho", Interpreter("/bin/sh")),
        (b"#! /usr/bin/perl -w\n", Interpreter("/usr/bin/perl")),
        (b"#!\t/bin/sh\t-e", Interpreter("/bin/sh")),
        (b"#!/bin/sh\r\n", Interpreter("/bin/sh")),
        (b"#!/usr/bin/env python3\n", Interpreter("/usr/bin/env", "python3")),
        (b"#!/usr/bin/env -S python3 -u\n", Interpreter("/usr/bin/env", "python3")),
        (b"#!/usr/bin/env -S -i A=b perl -T\n", Interpreter("/usr/bin/env", "perl")),
        (b"#!/usr/bin/env -Spython3 -u\n", Interpreter("/usr/bin/env", "python3")),
        (b"#!/usr/bin/env python3 -u\n", Interpreter("/usr/bin/env")),
        (b"#!/usr/bin/env\n", Interpreter("/usr/bin/env")),
        (b"#! perl\n", None),
        (b"#!\n", None),
        (b"\x7fELF", None),
        (b"", None),
    ],
)
def test_the_first_line_names_the_interpreter(line: bytes, expected: Interpreter | None) -> None:
    """Blanks, arguments, env with and without -S; relative interpreters are none."""
    assert interpreter(line) == expected


def test_the_name_is_that_of_what_reads_the_script() -> None:
    """Behind env it is env's program."""
    found = [interpreter(b"#!/usr/bin/perl\n"), interpreter(b"#!/usr/bin/env ruby\n")]
    assert [each and each.name for each in found] == ["perl", "ruby"]


@given(st.binary(max_size=300))
def test_any_bytes_give_an_absolute_interpreter_or_none(first_bytes: bytes) -> None:
    """Nothing a file may begin with makes the reader fail."""
    found = interpreter(b"#!" + first_bytes)
    assert found is None or found.path.startswith("/")
