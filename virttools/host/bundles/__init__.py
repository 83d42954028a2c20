"""Bundles: files that programs need and no ELF header names. One table, chosen by rule."""

from virttools.host.bundles import certificates, glibc, pam, perl, python, terminfo, vim
from virttools.host.bundles.rule import Program, Rule, Wish

__all__ = ["RULES", "Program", "Rule", "Wish"]

RULES: tuple[Rule, ...] = (
    glibc.RULE,
    pam.RULE,
    terminfo.RULE,
    certificates.RULE,
    perl.BASE,
    perl.SCRIPT,
    python.RULE,
    vim.RULE,
)
