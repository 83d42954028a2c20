"""Values: the filter by which what runs contained finds no kernel keyrings (seccomp(2)).

keyrings(7) know no namespace: root of a tree would read the keys of the machine's root, and have the
host run /sbin/request-key.
"""

import sys

# include/uapi/linux/audit.h (AUDIT_ARCH_*). Of each architecture whose programs a kernel of ours may run,
# the first of three neighbours: add_key, request_key, keyctl.
_CALLS = (
    (0xC000003E, 248),  # x86_64, and x32 with one bit more
    (0x40000003, 286),  # i386
    (0xC00000B7, 217),  # aarch64
    (0x40000028, 309),  # arm
    (0xC00000F3, 217),  # riscv64
)

# include/uapi/linux/seccomp.h, bpf_common.h
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | 38  # ENOSYS
_LOAD, _AND, _JUMP_EQUAL, _JUMP_FROM, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06


def filter_program() -> bytes:
    """Instructions of classic BPF over struct seccomp_data: code, two jumps, value."""
    lines = [(_LOAD, 0, 0, 4)]  # .arch
    for architecture, first in _CALLS:
        lines += [
            (_JUMP_EQUAL, 0, 6, architecture),
            (_LOAD, 0, 0, 0),  # .nr
            (_AND, 0, 0, 0xBFFFFFFF),  # __X32_SYSCALL_BIT
            (_JUMP_FROM, 0, 2, first),
            (_JUMP_FROM, 1, 0, first + 3),
            (_RETURN, 0, 0, _REFUSE),
            (_RETURN, 0, 0, _ALLOW),
        ]
    lines.append((_RETURN, 0, 0, _ALLOW))
    order = sys.byteorder  # not struct, which would cost each start half a millisecond
    return b"".join(
        [
            code.to_bytes(2, order) + bytes((yes, no)) + value.to_bytes(4, order)
            for code, yes, no, value in lines
        ]
    )
