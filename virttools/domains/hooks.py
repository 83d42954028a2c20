"""A manifest's hooks: programs of the host, run by us as they are, without a shell."""

from virttools.errors import ApplyError
from virttools.host import program
from virttools.manifest.model import Manifest


def run(manifest: Manifest, phase: str, domain: str, tree: str) -> bool:
    """Run every hook of that phase, in order; VIRT_DOMAIN and VIRT_TREE tell it where. True if any ran.

    Raises ApplyError with what a hook printed if it ends with another status than 0.
    """
    wanted = [hook for hook in manifest.hooks if hook.phase == phase]
    for hook in wanted:
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "VIRT_DOMAIN": domain, "VIRT_TREE": tree}
        result = program.call(hook.argv, env=env)
        if result.status != 0:
            said = result.stderr.decode(errors="replace").strip().splitlines()[-1:]
            cause = said[0] if said else "it said nothing"
            raise ApplyError(
                f"cannot finish {domain}: hook {hook.argv[0]} ended with {result.status}: {cause}",
                hint=f"the hook is declared at {hook.origin}",
            )
    return bool(wanted)
