"""recvmmsg(2) for dev/log: apart from linux.py, since it needs all of ctypes, which costs others time."""

import ctypes
import os
import struct
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)

# include/linux/socket.h
_MSG_DONTWAIT = 0x40
_MSG_TRUNC = 0x20
_MSG_CMSG_CLOEXEC = 0x40000000


class Datagrams:
    """Receives datagrams of a unix socket with SO_PASSCRED, many by one recvmmsg(2).

    Descriptors that come along have no room, and so are never ours.
    """

    MANY = 64

    __slots__ = ("_buffer", "_control", "_credentials", "_headers", "_iovecs", "_memory", "_size")

    # struct mmsghdr, and a control message with a struct ucred, as CMSG_SPACE(12) has it
    _HEADER = struct.Struct("@PIPNPNi0PI0P")
    _RESULT = struct.Struct(f"@{struct.calcsize('@PIPNPN')}xi0PI0P")
    _IOVEC = struct.Struct("@PN")
    _UCRED = struct.Struct("@NiiiII0P")

    def __init__(self, largest: int) -> None:
        self._size = largest
        self._buffer: Any = (
            ctypes.c_char * (largest * self.MANY)
        )()  # its slices are bytes at once
        self._control = bytearray(self._UCRED.size * self.MANY)
        self._iovecs = bytearray(self._IOVEC.size * self.MANY)
        self._memory = bytearray(self._HEADER.size * self.MANY)
        data = ctypes.addressof(self._buffer)
        control, iovecs = _address(self._control), _address(self._iovecs)
        for index in range(self.MANY):
            at = iovecs + index * self._IOVEC.size
            where = control + index * self._UCRED.size
            self._IOVEC.pack_into(self._iovecs, index * self._IOVEC.size, data, largest)
            header = (0, 0, at, 1, where, self._UCRED.size, 0, 0)
            self._HEADER.pack_into(self._memory, index * self._HEADER.size, *header)
            data += largest
        self._headers = ctypes.c_void_p(_address(self._memory))
        self._credentials = memoryview(self._control)

    def receive(self, fd: int) -> list[tuple[bytes, bool, int, int]]:
        """What waits, at most MANY: (data, whether it was cut, pid, uid). Raises BlockingIOError, OSError."""
        flags = _MSG_DONTWAIT | _MSG_CMSG_CLOEXEC
        count = _libc.recvmmsg(fd, self._headers, self.MANY, flags, None)
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        if count == 1:
            told, length = self._RESULT.unpack_from(self._memory)
            _, _, _, pid, uid, _ = self._UCRED.unpack_from(self._control)
            return [(self._buffer[:length], told & _MSG_TRUNC != 0, pid, uid)]
        buffer, at, size = self._buffer, 0, self._size
        found = []
        results = self._RESULT.iter_unpack(memoryview(self._memory)[: count * self._HEADER.size])
        senders = self._UCRED.iter_unpack(self._credentials[: count * self._UCRED.size])
        for (told, length), (_, _, _, pid, uid, _) in zip(results, senders, strict=True):
            found.append((buffer[at : at + length], told & _MSG_TRUNC != 0, pid, uid))
            at += size
        return found


def _address(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))
