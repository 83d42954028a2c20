"""Values: the variables by which UCSPI programs know their connection (ucspi-tcp, s6-networking, ipsvd)."""


def variables(
    protocol: str, local: tuple[str, int], remote: tuple[str, int] | None
) -> dict[bytes, bytes]:
    """PROTO, TCPLOCALIP, TCPLOCALPORT, TCPREMOTEIP, TCPREMOTEPORT; UDP… where protocol is "UDP".

    Addresses are numbers as `shown` has them; no name is looked up. remote None: nobody is there.
    """
    found = {"PROTO": protocol}
    for side, place in (("LOCAL", local), ("REMOTE", remote)):
        if place is not None:
            found[f"{protocol}{side}IP"] = shown(place[0])
            found[f"{protocol}{side}PORT"] = str(place[1])
    return {name.encode(): value.encode() for name, value in found.items()}


def shown(address: str) -> str:
    """An address as sockets tell it; of IPv4-mapped IPv6, the IPv4 address in it."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address
