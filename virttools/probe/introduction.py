"""Doer: a client's connections begin with a PROXY header where the service takes us for one of its proxies."""

import socket
from collections.abc import Sequence

from virttools.serve.admission import Networks
from virttools.serve.proxyprotocol import line


def introduce(connection: socket.socket, proxies: Sequence[str]) -> None:
    """Say that we are who we are, if that is awaited from our address; else it would come to the program."""
    ours, theirs = connection.getsockname()[:2], connection.getpeername()[:2]
    if proxies and Networks(proxies).has(ours[0]):
        connection.sendall(line(ours, theirs))


def begin(port: int, proxies: Sequence[str]) -> None:
    """From now on, in this process, all connections to that port do: the library's clients call one function."""
    connect = socket.create_connection

    def introduced(address: tuple[str, int], *words: object, **options: object) -> socket.socket:
        connection = connect(address, *words, **options)  # type: ignore[arg-type]
        if address[1] == port:  # and no data connection of FTP
            try:
                introduce(connection, proxies)
            except OSError:
                connection.close()
                raise
        return connection

    socket.create_connection = introduced  # type: ignore[assignment]
