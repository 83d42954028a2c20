"""The house of DESIGN 10: each module is of one kind, and imports only from below it."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "virttools"

KINDS = ("ground", "value", "reader", "doer", "composer", "top")
ALLOWED = {
    "ground": {"ground"},
    "value": {"ground", "value"},
    "reader": {"ground", "value", "reader"},
    "doer": {"ground", "value", "reader", "doer"},
    "composer": {"ground", "value", "reader", "doer", "composer"},
    "top": set(KINDS),
}

MODULES = {
    "ground": "datagrams errors linux tree.beneath",
    "value": """
        manifest.forms manifest.keys manifest.merge manifest.model manifest.names manifest.parse
        manifest.positions manifest.schema manifest.text
        host.facts host.scripts
        tree.accounts tree.actions tree.failures scrub.findings scrub.globs scrub.neighbours scrub.operations
        tree.paths tree.plan tree.ranges tree.record tree.rendering scrub.rulebook scrub.shapes tree.shared tree.skeleton
        enter.accounts enter.entrance enter.environment enter.keyrings enter.listing enter.matching enter.options
        image image.bill image.cyclonedx image.differences image.documents image.items image.spdx image.tar host.licences
        serve.admission serve.board serve.live serve.messages serve.places serve.crowd serve.packing serve.proxyprotocol serve.routes serve.rendered serve.services serve.ucspi serve.schedule serve.restarting serve.status
        devlog.freshness devlog.limits devlog.lines devlog.messages devlog.places
        doctor.checks doctor.contents doctor.facts doctor.finding doctor.ground doctor.logging doctor.mending doctor.residents doctor.roads
        net net.alias net.naming
        probe probe.accounts probe.crypt probe.encryption probe.outcome
        devlog.limits devlog.lines devlog.messages devlog.places
    """,
    "reader": """
        settings
        manifest.load manifest.profiles
        host.accounts host.idranges host.binaries host.bundles host.bundles.certificates host.bundles.glibc
        host.bundles.pam host.bundles.perl host.bundles.python host.bundles.rule host.bundles.terminfo host.bundles.vim
        host.closure host.elf host.gather host.ldso host.packages host.program host.search
        host.surroundings host.survey host.sysroot host.templates
        tree.describe tree.ids scrub.inspection scrub.lookers tree.processes scrub.reach scrub.secrets
        tree.users scrub.planned scrub.view
        enter.inside enter.marker enter.program enter.roster
        image.walk image.intended image.reading
        devlog.attribution devlog.cgroups devlog.reader devlog.staleness
        serve.asking serve.conffile serve.inetdconf
        doctor.examine_host doctor.examine_tree
        probe.causes probe.missing
    """,
    "doer": """
        tree.apply tree.chosen tree.content tree.delete tree.ground tree.locks scrub.mend tree.publish
        tree.kept tree.remove tree.rewrite tree.root scrub.search tree.spread tree.staging tree.steps tree.store
        enter.choose enter.confinement enter.contain enter.drawn enter.execute enter.userns enter.rootless enter.init enter.mounts enter.signals enter.terminal enter.history enter.links enter.many enter.nothing enter.picker enter.reports
        serve.wrapper
        devlog.handover devlog.mounting devlog.relink devlog.setup devlog.sockets devlog.watch
        devlog.belonging devlog.forward devlog.holder devlog.receiver devlog.writing
        image.archives image.assemble image.folder image.layout image.output image.pack image.push image.stream
        serve.internal serve.metrics serve.notify serve.proxied
        serve.become serve.connection serve.forking serve.jail
        serve.following serve.journal serve.launch serve.ledger serve.listening serve.loading serve.namespaces serve.acceptor serve.spawner
        serve.starter serve.work serve.holdings serve.children serve.control serve.successor serve.supervisor serve.worker
        probe.clients probe.introduction probe.ftp probe.http probe.imap probe.network probe.performer probe.pop probe.poppass probe.smb probe.smtp
        net.aliases net.arp net.claims
        probe.scene probe.trial
        serve.daemons serve.keeper
    """,
    "composer": "domains",
    "top": "cli dispatch __main__",
}
KIND = {name: kind for kind, names in MODULES.items() for name in names.split()}
SUBPROCESS = "host.program"


@cache
def modules() -> tuple[str, ...]:
    """Every module of the package, by its name inside it; packages by their own."""
    found = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    names = [".".join(path.parts).removesuffix(".__init__") for path in found]
    return tuple(sorted(name for name in names if name != "__init__"))


def kind(name: str) -> str | None:
    """The kind of a module: its own, or that of the folder all of whose modules are of one."""
    if name in KIND:
        return KIND[name]
    folder = name.partition(".")[0]
    return KIND.get(folder) if folder in ("domains", "cli") else None


@cache
def imports(name: str) -> frozenset[str]:
    """What a module imports anywhere in it, in function bodies too, by full name."""
    path = PACKAGE.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            module = node.module or ""
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                is_module = inner.removeprefix("virttools.") in modules()
                found.add(inner if is_module else module)
    return frozenset(found)


def test_every_module_has_a_kind() -> None:
    """A new module says where it stands, in the table above; a gone one leaves it."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert {name for name in modules() if kind(name) is None} - packages == set()
    assert set(KIND) - set(modules()) == set()


@pytest.mark.parametrize("name", modules())
def test_imports_run_downwards(name: str) -> None:
    """Values know values, readers those too, doers those too; domains composes, cli and dispatch are on top."""
    ours = {
        module.removeprefix("virttools.")
        for module in imports(name)
        if module.startswith("virttools.")
    }
    upwards = {module for module in ours if kind(module) not in ALLOWED[kind(name) or "ground"]}
    assert upwards == set()


@pytest.mark.parametrize("name", modules())
def test_programs_are_started_in_one_place(name: str) -> None:
    """Only host/program.py knows subprocess, and only linux.py and datagrams.py know ctypes."""
    found = imports(name)
    assert ("subprocess" in found) == (name == SUBPROCESS)
    assert bool(found & {"ctypes", "_ctypes"}) <= (name in {"linux", "datagrams"})
