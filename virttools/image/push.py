"""Doer: sends an image that lies in a layout or an OCI archive to a registry, by skopeo(1) or oras."""

import os
import re

from virttools.errors import ApplyError, HostLacks, UsageError
from virttools.host import program

_PASSED_ON = (
    "PATH", "HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip
"""Where those programs find themselves, who we are to the registry, and the way there."""

_TRANSPORT = re.compile(
    r"(docker|oci|oci-archive|dir|docker-archive|docker-daemon|containers-storage):.+"
)
_REFERENCE = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9._-]*(?::[0-9]+)?/[a-z0-9._/-]+(?::[\w][\w.-]{0,127})?"
)


def reference(text: str) -> str:
    """A place for an image as skopeo(1) names it: HOST/NAME[:TAG] is one in a registry. Raises UsageError."""
    if _TRANSPORT.fullmatch(text):
        return text
    if _REFERENCE.fullmatch(text):
        return f"docker://{text}"
    raise UsageError(
        f"cannot push to {text!r}: it names no place for an image",
        hint="--push registry.example.com/shop/web:1.0, or docker://…, as skopeo(1) names it",
    )


def push(source: str, kind: str, tag: str, target: str, *, has_referrers: bool) -> str:
    """Send the image with that tag in `source` (kind: "oci" or "oci-archive") to `target`; by whom it was sent.

    has_referrers: documents hang on it, which only oras takes along.
    Raises HostLacks where nobody is there to do it, ApplyError where it fails.
    """
    if ":" in source:
        raise UsageError(
            f"cannot push from {source}: skopeo takes a colon in a path for the begin of a tag",
            hint="name another OUT",
        )
    ways = {
        "skopeo": ["skopeo", "copy", "--quiet", "--insecure-policy", "--all",
                   f"{kind}:{source}:{tag}", target],
    }  # fmt: skip
    if target.startswith("docker://") and kind == "oci":
        name = target.removeprefix("docker://")
        sent = ["oras", "cp", "--no-tty", *(["-r"] if has_referrers else [])]
        ways["oras"] = [*sent, "--from-oci-layout", f"{source}:{tag}", name]
    for way in sorted(ways, reverse=not has_referrers):
        if _is_sent(way, ways[way], target):
            return way
    raise HostLacks(
        f"cannot push to {target}: neither {' nor '.join(sorted(ways))} is there",
        hint="apt-get install skopeo",
    )


def _is_sent(way: str, argv: list[str], target: str) -> bool:
    """False where that program is not there. Raises ApplyError."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    try:
        # Its policy is about images of others: this one was made a moment ago, by us.
        done = program.call(argv, env=env)
    except HostLacks:
        return False
    if done.status != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise ApplyError(
            f"cannot push to {target}: {way}: {said[-1] if said else f'status {done.status}'}",
            hint="the image itself is made; credentials: skopeo login, or oras login",
        )
    return True
