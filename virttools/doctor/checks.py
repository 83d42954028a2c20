"""Values: the registry of all checks, and what they say of a machine, a tree, and all trees together."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from virttools.doctor import contents, ground, logging, residents, roads
from virttools.doctor.facts import Machine, Resident, Tree
from virttools.doctor.finding import Fault, Finding, Severity

MOST = 20
"""Findings of one check in one domain: who fills a tree with faults fills no screen."""


@dataclass(frozen=True, slots=True)
class Check:
    """id: kebab-case, stable. One of the three looks: at the machine, at a tree, at all domains."""

    id: str
    severity: Severity
    machine: Callable[[Machine], Iterator[Fault]] | None = None
    tree: Callable[[Machine, Tree], Iterator[Fault]] | None = None
    together: Callable[[Machine, Sequence[Resident]], Iterator[Fault]] | None = None


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

CHECKS = (
    Check("kernel-feature", _ERROR, machine=ground.kernel),
    Check("user-namespaces", _NOTE, machine=ground.user_namespaces),
    Check("root-unsafe", _ERROR, machine=ground.root),
    Check("root-mount", _ERROR, machine=ground.mount),
    Check("staging-leftover", _WARNING, machine=ground.staging),
    Check("record-damaged", _ERROR, machine=ground.damaged),
    Check("record-without-tree", _WARNING, machine=ground.records),
    Check("link-broken", _ERROR, machine=ground.links),
    Check("address-missing", _ERROR, tree=roads.addresses),
    Check("hosts-astray", _NOTE, tree=roads.hosts),
    Check("service-no-address", _WARNING, tree=roads.services),
    Check("routes-unreadable", _ERROR, machine=roads.unreadable),
    Check("routes-untrusted", _ERROR, machine=roads.trust),
    Check("route-no-tree", _ERROR, machine=roads.missing_trees),
    Check("route-hidden", _WARNING, machine=roads.hidden),
    Check("route-contested", _WARNING, machine=roads.strangers),
    Check("routes-unsynced", _NOTE, machine=roads.unsynced),
    Check("inetd-line", _ERROR, machine=roads.inetd_lines),
    Check("inetd-limit", _WARNING, machine=roads.inetd_limit),
    Check("inetd-wait", _ERROR, machine=roads.inetd_wait),
    Check("log-link", _ERROR, tree=logging.link),
    Check("log-server", _WARNING, together=logging.server),
    Check("serve-not-running", _NOTE, together=logging.serving),
    Check("passwd-missing", _ERROR, tree=residents.no_passwd),
    Check("service-user", _ERROR, tree=residents.service_users),
    Check("home-missing", _WARNING, tree=residents.homes),
    Check("uid-shared", _WARNING, together=residents.shared_ids),
    Check("uid-range", _WARNING, tree=residents.host_ids),
    Check("uid-outside", _WARNING, tree=residents.outsiders),
    Check("tree-unreadable", _ERROR, tree=contents.unreadable),
    Check("tree-owner", _ERROR, tree=contents.owner),
    Check("path-missing", _ERROR, tree=contents.missing),
    Check("path-replaced", _ERROR, tree=contents.replaced),
    Check("etc-missing", _NOTE, tree=contents.missing_own),
    Check("set-id-lost", _ERROR, tree=contents.set_id),
    Check("set-id-made", _WARNING, tree=contents.set_id_made),
    Check("not-executable", _ERROR, tree=contents.unexecutable),
    Check("hard-link", _ERROR, tree=contents.hard_links),
    Check("world-writable", _ERROR, tree=contents.writable),
    Check("mount-left", _WARNING, tree=contents.mounts),
    Check("tree-apart", _NOTE, tree=contents.apart),
    Check("pam-other", _ERROR, tree=contents.pam_other),
    Check("resolver-local", _NOTE, tree=contents.resolvers),
    Check("library-old", _WARNING, tree=contents.libraries),
    Check("sendmail-mode", _WARNING, tree=contents.sendmail, together=contents.sendmail_inetd),
)


def of_machine(machine: Machine) -> Iterator[Finding]:
    for check in CHECKS:
        if check.machine is not None:
            yield from _found(check, check.machine(machine), None)


def of_tree(machine: Machine, tree: Tree) -> Iterator[Finding]:
    for check in CHECKS:
        if check.tree is not None:
            yield from _found(check, check.tree(machine, tree), tree.domain)


def of_all(machine: Machine, residents_: Sequence[Resident]) -> Iterator[Finding]:
    for check in CHECKS:
        if check.together is not None:
            yield from _found(check, check.together(machine, residents_), None)


def _found(check: Check, faults: Iterable[Fault], domain: str | None) -> Iterator[Finding]:
    for fault in itertools.islice(faults, MOST):
        whose = fault.domain or domain
        yield Finding(check.id, check.severity, whose, fault.what, fault.cause, fault.mend)


def resident(tree: Tree) -> Resident:
    """What the last checks need of a tree."""
    users = [(one.uid, one.name) for one in tree.people or ()]
    served = {one.user for one in tree.manifest.services} - {"root"}
    served |= {one.user for one in tree.manifest.daemons} - {"root"}
    return Resident(
        domain=tree.domain,
        layers=tree.layers,
        uid_base=tree.uid_base,
        users=tuple(
            (uid, name)
            for uid, name in users
            if residents.is_human(uid, tree.uid_base) or (name in served and uid != 0)
        ),
        is_unheard=logging.is_unheard(tree),
        serves=tuple(one.name for one in tree.manifest.services if one.port is not None),
        daemons=tuple(one.name for one in tree.manifest.daemons),
        has_submit_cf=tree.has_submit_cf,
    )
