"""Bundles hold what programs need beyond their ELF headers, closed and no more."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virttools.host.bundles import RULES, Program, glibc, pam, perl, python, terminfo
from virttools.host.scripts import Interpreter
from virttools.host.sysroot import Sysroot

LIBRARIES = "/lib/x86_64-linux-gnu"
PAM = (("libpam.so.0", f"{LIBRARIES}/libpam.so.0"),)


def plant(root: Path, *paths: str, text: str = "") -> None:
    for path in paths:
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def test_every_rule_has_a_name_of_its_own_and_says_what_it_brings() -> None:
    """The table is what `virt why` and the documentation show."""
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert all(rule.about and not rule.about.endswith(".") for rule in RULES)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (Program("/usr/bin/x", ("x",), PAM), {"pam bundle: links libpam.so.0"}),
        (
            Program("/usr/bin/x", ("x",), (("libtinfo.so.6", "/l"), ("libc.so.6", "/c"))),
            {"terminfo bundle: links libtinfo.so.6", "glibc bundle: links libc.so.6"},
        ),
        (
            Program("/usr/bin/curl", ("curl",), (("libcurl.so.4", "/l"),)),
            {"certificates bundle: links libcurl.so.4"},
        ),
        (
            Program("/usr/bin/python3.11", ("python3",), (("libm.so.6", "/l"),)),
            {"python bundle: is python3.11"},
        ),
        (
            Program("/usr/bin/perl", ("perl",), (("libm.so.6", "/l"),)),
            {"perl bundle: is perl"},
        ),
        (
            Program("/s", ("s",), interpreter=Interpreter("/usr/bin/perl")),
            {"perl modules bundle: is a perl script"},
        ),
        (
            Program("/usr/bin/vim.basic", ("vi",), (("libm.so.6", "/l"),)),
            {"vim bundle: is vim.basic"},
        ),
        (Program("/usr/bin/vim.tiny", ("vi",), (("libm.so.6", "/l"),)), set()),
        (Program("/s", ("s",), interpreter=Interpreter("/bin/sh")), set()),
    ],
)
def test_a_rule_is_chosen_by_what_a_program_is_or_links(program: Program, said: set[str]) -> None:
    """Each says its trigger."""
    triggers = {rule.name: rule.trigger(program) for rule in RULES}
    assert {f"{name} bundle: {why}" for name, why in triggers.items() if why} == said


def test_pam_lines_are_read_as_pam_reads_them() -> None:
    """Controls in brackets, continued lines, comments, dashes and both forms of inclusion."""
    text = (
        "# comment\n"
        "@include common-auth\n"
        "auth [success=1 default=ignore] pam_unix.so nullok # why\n"
        "-session optional pam_systemd.so\n"
        "account required pam_listfile.so \\\n  file=/etc/ftpusers [sense=deny x]\n"
        "auth substack system-auth\n"
        "broken line\n"
    )
    assert pam.parse(text) == (
        pam.Line("@include", "common-auth", (), is_optional=False),
        pam.Line("[success=1 default=ignore]", "pam_unix.so", ("nullok",), is_optional=False),
        pam.Line("optional", "pam_systemd.so", (), is_optional=True),
        pam.Line(
            "required",
            "pam_listfile.so",
            ("file=/etc/ftpusers", "[sense=deny x]"),
            is_optional=False,
        ),
        pam.Line("substack", "system-auth", (), is_optional=False),
    )


@given(st.text(alphabet="@include auth[]=#-\\\n/.so", max_size=80))
def test_any_pam_text_is_read_without_failing(text: str) -> None:
    """Lines never have an empty module."""
    assert all(line.module for line in pam.parse(text))


def test_the_pam_bundle_is_a_closed_set(tmp_path: Path) -> None:
    """The service, its variants, `other`, all they include once, modules, their files and helpers."""
    plant(tmp_path, "/etc/pam.d/su", text="auth required pam_unix.so\n@include common-auth\n")
    plant(tmp_path, "/etc/pam.d/su-l", text="auth include su\n")
    plant(tmp_path, "/etc/pam.d/sudo", "/etc/pam.d/login", text="auth required pam_no.so\n")
    plant(tmp_path, "/etc/pam.d/other", text="@include common-auth\n@include lost\n")
    plant(
        tmp_path,
        "/etc/pam.d/common-auth",
        text="auth required pam_listfile.so file=/etc/users motd=/run/x envfile=/e\n"
        "auth optional /opt/pam_own.so\nsession optional pam_systemd.so\n@include su\n",
    )
    wishes = list(pam.RULE.wishes(Sysroot(str(tmp_path)), Program("/bin/su", ("su",), PAM)))
    assert {(wish.path, wish.by, wish.is_needed) for wish in wishes} == {
        ("/etc/pam.d/su", "/bin/su", False),
        ("/etc/pam.d/su-l", "/bin/su", False),
        ("/etc/pam.d/other", "/bin/su", False),
        ("/etc/pam.d/common-auth", "/etc/pam.d/su", False),
        ("/etc/pam.d/lost", "/etc/pam.d/other", True),
        (f"{LIBRARIES}/security/pam_unix.so", "/etc/pam.d/su", True),
        ("/usr/sbin/unix_chkpwd", f"{LIBRARIES}/security/pam_unix.so", False),
        ("/usr/sbin/unix_update", f"{LIBRARIES}/security/pam_unix.so", False),
        (f"{LIBRARIES}/security/pam_listfile.so", "/etc/pam.d/common-auth", True),
        ("/etc/users", "/etc/pam.d/common-auth", False),
        ("/opt/pam_own.so", "/etc/pam.d/common-auth", False),
    }


def test_perl_names_its_modules() -> None:
    """By use and require, in evals too, with parents; not in pods, comments or after the end."""
    text = """#!/usr/bin/perl -w
use strict; use 5.010;
use File::Basename qw(dirname);
    require POSIX;
eval 'use Locale::gettext';
eval { require Old'Style; };
use parent qw(My::Parent Other);
require "lib/old.pl";
{ require Without::Semicolon }
{
    require Last::In::Block }
use After::It;
# use Commented::Out;
my $x = "use Quoted";

=pod

use In::Pod;

=cut

use constant PI => 3;
__END__
use After::End;
"""
    assert perl.modules(text) == (
        "After/It.pm",
        "File/Basename.pm",
        "Last/In/Block.pm",
        "Locale/gettext.pm",
        "My/Parent.pm",
        "Old/Style.pm",
        "Other.pm",
        "POSIX.pm",
        "constant.pm",
        "lib/old.pl",
        "parent.pm",
        "strict.pm",
    )


def test_a_perl_script_brings_modules_of_modules_and_their_compiled_parts(tmp_path: Path) -> None:
    """Through @INC; what perl-base has is not followed, what nobody has is left out."""
    plant(tmp_path, "/usr/bin/s", text="use A::B;\nuse Base;\nuse Lost;\n")
    plant(tmp_path, "/usr/share/perl5/A/B.pm", text="package A::B;\nuse C;\nuse A::B;\n")
    plant(tmp_path, "/usr/lib/x/perl/5.36/C.pm", "/usr/lib/x/perl/5.36/auto/C/C.so")
    plant(tmp_path, "/usr/lib/x/perl-base/Base.pm", text="use Lost::More;\n")
    script = Program("/usr/bin/s", ("s",), interpreter=Interpreter("/usr/bin/perl"))
    wishes = [(wish.path, wish.by) for wish in perl.SCRIPT.wishes(Sysroot(str(tmp_path)), script)]
    assert wishes == [
        ("/usr/share/perl5/A/B.pm", "/usr/bin/s"),
        ("/usr/lib/x/perl-base/Base.pm", "/usr/bin/s"),
        ("/usr/lib/x/perl/5.36/C.pm", "/usr/share/perl5/A/B.pm"),
        ("/usr/lib/x/perl/5.36/auto/C/C.so", "/usr/lib/x/perl/5.36/C.pm"),
    ]


def test_python_brings_its_own_library_without_tests_and_caches(tmp_path: Path) -> None:
    """Only that of the same version, known by os.py."""
    library = "/usr/lib/python3.11"
    plant(
        tmp_path,
        f"{library}/os.py",
        f"{library}/json/__init__.py",
        f"{library}/json/__pycache__/x.pyc",
        f"{library}/test/x.py",
        f"{library}/lib-dynload/_json.so",
        f"{library}/lib-dynload/_testcapi.so",
        f"{library}/site-packages/x.py",
        "/usr/lib/python3.12/os.py",
        "/usr/lib/python3.11x/os.py",
        "/usr/lib/python3/dist-packages/x.py",
    )
    program = Program("/usr/bin/python3.11", ("python3",), (("libc.so.6", "/c"),))
    wishes = [wish.path for wish in python.RULE.wishes(Sysroot(str(tmp_path)), program)]
    assert wishes == [
        f"{library}/json/__init__.py",
        f"{library}/lib-dynload/_json.so",
        f"{library}/os.py",
    ]


def test_common_terminals_come_from_share_where_lib_lacks_them(tmp_path: Path) -> None:
    """/lib/terminfo whole; of the seven megabytes elsewhere only what is common."""
    plant(tmp_path, "/lib/terminfo/x/xterm", "/usr/share/terminfo/v/vt100")
    plant(tmp_path, "/etc/terminfo/README", "/etc/terminfo/o/own")
    program = Program("/usr/bin/nano", ("nano",), (("libtinfo.so.6", "/t"),))
    wishes = {wish.path for wish in terminfo.RULE.wishes(Sysroot(str(tmp_path)), program)}
    assert {"/lib/terminfo", "/etc/terminfo/o", "/usr/share/terminfo/v/vt100"} <= wishes
    assert not {"/usr/share/terminfo/x/xterm", "/etc/terminfo/README"} & wishes


def test_an_old_glibc_brings_its_name_services(tmp_path: Path) -> None:
    """From 2.34 on they are inside libc; a libc that tells no version is taken for an old one."""
    plant(tmp_path, f"{LIBRARIES}/libc.so.6")
    program = Program("/bin/x", ("x",), (("libc.so.6", f"{LIBRARIES}/libc.so.6"),))
    wishes = {wish.path for wish in glibc.RULE.wishes(Sysroot(str(tmp_path)), program)}
    assert f"{LIBRARIES}/libnss_files.so.2" in wishes


def test_this_hosts_glibc_brings_what_its_release_needs() -> None:
    """The version is read from its symbols, and equals what it says of itself."""
    import os

    name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    major, minor = (int(part) for part in name.removeprefix("glibc ").split("."))
    libc = next(
        path for path in (f"{LIBRARIES}/libc.so.6", "/lib64/libc.so.6") if Path(path).exists()
    )
    program = Program("/bin/x", ("x",), (("libc.so.6", libc),))
    wishes = {Path(wish.path).name for wish in glibc.RULE.wishes(Sysroot(), program)}
    assert ("libnss_files.so.2" in wishes) == ((major, minor) < (2, 34))
    assert {"libgcc_s.so.1", "C.utf8"} <= wishes
