"""Values: TLS as a trial wants it: any certificate is good, for asked is whether it serves, at an address."""

import ssl


def context() -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname = False
    found.verify_mode = ssl.CERT_NONE
    return found
