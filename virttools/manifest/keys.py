"""Every key a manifest can have: the tables that drive parser, merge and JSON Schema alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from virttools.manifest import forms, model
from virttools.manifest.forms import Form

SKELETON = (
    "hosts",
    "hostname",
    "HOSTNAME",
    "resolv.conf",
    "nsswitch.conf",
    "host.conf",
    "passwd",
    "group",
    "shadow",
    "gshadow",
    "login.defs",
    "profile",
    "services",
    "protocols",
    "motd",
    "localtime",
    "timezone",
    "securetty",
    "shells",
)

# Linux Documentation/admin-guide/devices.txt
_NODES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
DEVICES: Mapping[str, Mapping[str, Any]] = {
    name: {"path": f"/dev/{name}", "type": "c", "major": major, "minor": minor, "mode": 0o666}
    for name, (major, minor) in _NODES.items()
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, or (many) a list of such values as one; a later layer overrides it."""

    form: Form
    about: str
    many: bool = False


@dataclass(frozen=True, slots=True)
class Words:
    """A list of plain values; a later layer adds to it.

    identity: what makes two values the same one. splits: one text with commas will do.
    """

    form: Form
    about: str
    identity: Callable[[Any], str] = str
    splits: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One key of an item. name: the model's, where it is another. many: a list of such values."""

    form: Form
    required: bool = False
    default: Any = None
    many: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of tables, each one value of the model.

    identity: the attribute by which a later layer replaces an item.
    short: the key that a plain text stands for. named: tables that a plain text stands for.
    fault: what is wrong between keys of one item, in words, or "".
    """

    model: Callable[..., Any]
    fields: Mapping[str, Field]
    about: str
    identity: Callable[[Any], str]
    short: str = ""
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fault: Callable[[Mapping[str, Any]], str] = field(default=lambda values: "")  # noqa: ARG005  nothing is wrong with any


Plain: TypeAlias = Scalar | Words


@dataclass(frozen=True, slots=True)
class Section:
    """A table of its own, one value of the model."""

    model: Callable[..., Any]
    keys: Mapping[str, Plain]
    about: str


Key: TypeAlias = Scalar | Words | Items | Section


def _file_fault(values: Mapping[str, Any]) -> str:
    if values["target"] is not None and any(sign in values["source"] for sign in "*?"):
        return "has a pattern in from, which many files may match, and one path in to"
    return ""


def _hook_fault(values: Mapping[str, Any]) -> str:
    argv = values["argv"]
    if not argv or not argv[0].startswith("/"):
        return "must run a program by its absolute path; no shell looks it up"
    return ""


def _service_fault(values: Mapping[str, Any]) -> str:
    if values["port"] is None and values["every"] is None:
        return "needs a port to answer on, or every to be run periodically"
    if values["port"] is not None and values["every"] is not None:
        return "has both port and every; make two services of it"
    if values["every"] is not None:
        idle = [name for name in _OF_CONNECTIONS if values[name] != _SERVICE_FIELDS[name].default]
        return f"has every, and then no connections for {', '.join(idle)}" if idle else ""
    if values["wait"] or values["protocol"] == "udp":
        idle = [name for name in _OF_EACH if values[name] != _SERVICE_FIELDS[name].default]
        return (
            f"waits, so its program meets the clients itself: no {', '.join(idle)}" if idle else ""
        )
    return ""


def _hook_identity(hook: model.Hook) -> str:
    return repr((hook.phase, hook.argv))


def _left_of_equals(pair: str) -> str:
    return pair.partition("=")[0]


def _sign_off(operation: str) -> str:
    return operation.lstrip("+-")


_OWNERS = {
    "owner": Field(forms.ACCOUNT, default="root"),
    "group": Field(forms.ACCOUNT, default="root"),
}
_OPTIONAL = {"optional": Field(forms.FLAG, default=False)}

_FILES = Items(
    model.File,
    {
        "from": Field(forms.SOURCE, required=True, name="source"),
        "to": Field(forms.TREE_PATH, name="target"),
        "mode": Field(forms.MODE),
        "owner": Field(forms.ACCOUNT),
        "group": Field(forms.ACCOUNT),
        **_OPTIONAL,
    },
    "files of the host, by path or pattern, with what they need",
    identity=lambda file: str(file.target or file.source),
    short="from",
    fault=_file_fault,
)
_DIRECTORIES = Items(
    model.Directory,
    {
        "path": Field(forms.DIRECTORY_PATH, required=True),
        "mode": Field(forms.MODE, default=0o755),
        **_OWNERS,
    },
    "directories to make",
    identity=lambda directory: str(directory.path),
    short="path",
)
_SYMLINKS = Items(
    model.Symlink,
    {
        "path": Field(forms.TREE_PATH, required=True),
        "to": Field(forms.LINK_TARGET, required=True, name="target"),
    },
    "symbolic links to make",
    identity=lambda link: str(link.path),
)
_DEVICE_TABLE = Items(
    model.Device,
    {
        "path": Field(forms.TREE_PATH, required=True),
        "type": Field(forms.closed(("c", "b")), required=True),
        "major": Field(forms.number(0, 2**12 - 1), required=True),
        "minor": Field(forms.number(0, 2**20 - 1), required=True),
        "mode": Field(forms.MODE, default=0o660),
        **_OWNERS,
    },
    "device nodes to make, by name or in full",
    identity=lambda device: str(device.path),
    named=DEVICES,
)
_TEMPLATES = Items(
    model.Template,
    {
        "from": Field(forms.TEMPLATE, required=True, name="source"),
        "to": Field(forms.TREE_PATH, required=True, name="target"),
        "mode": Field(forms.MODE, default=0o644),
        **_OWNERS,
    },
    "files to write from jinja2 templates",
    identity=lambda template: str(template.target),
)
_USERS = Items(
    model.User,
    {
        "name": Field(forms.ACCOUNT, required=True),
        "uid": Field(forms.ID),
        "group": Field(forms.ACCOUNT),
        "groups": Field(forms.ACCOUNT, default=(), many=True),
        "gecos": Field(forms.GECOS, default=""),
        "home": Field(forms.ACCOUNT_PATH),
        "shell": Field(forms.SHELL, default="/bin/bash"),
        "password": Field(forms.CRYPT, default="!"),
        "create_home": Field(forms.FLAG, default=True),
    },
    "accounts of the tree",
    identity=lambda user: str(user.name),
)
_GROUPS = Items(
    model.Group,
    {
        "name": Field(forms.ACCOUNT, required=True),
        "gid": Field(forms.ID),
        "members": Field(forms.ACCOUNT, default=(), many=True),
    },
    "groups of the tree",
    identity=lambda group: str(group.name),
)
_OF_EACH = ("per_source", "only_from", "no_access", "banner", "proxy_protocol")
_OF_CONNECTIONS = ("zygote", "protocol", "wait", "bind", "backlog", "instances", "cps", *_OF_EACH)
_SERVICE_FIELDS = {
    "name": Field(forms.SERVICE, required=True),
    "port": Field(forms.PORT),
    "protocol": Field(forms.closed(("tcp", "udp")), default="tcp"),
    "user": Field(forms.ACCOUNT, default="root"),
    "groups": Field(forms.ACCOUNT, default=(), many=True),
    "program": Field(forms.PROGRAM_PATH, required=True),
    "args": Field(forms.ARGUMENT, default=(), many=True),
    "isolation": Field(forms.closed(model.Isolation), default=model.Isolation.NAMESPACE),
    "every": Field(forms.DURATION),
    "wait": Field(forms.FLAG, default=False),
    "bind": Field(forms.ADDRESS, default=(), many=True),
    "backlog": Field(forms.number(1, 65535), default=1024),
    "instances": Field(forms.number(1, 1_000_000)),
    "per_source": Field(forms.number(1, 1_000_000)),
    "cps": Field(forms.RATE),
    "only_from": Field(forms.NETWORK, default=(), many=True),
    "no_access": Field(forms.NETWORK, default=(), many=True),
    "access_times": Field(forms.TIMES, default=(), many=True),
    "log_on_success": Field(
        forms.closed(("PID", "HOST", "EXIT", "DURATION")), default=(), many=True
    ),
    "log_on_failure": Field(forms.closed(("HOST", "ATTEMPT")), default=("HOST",), many=True),
    "banner": Field(forms.TREE_PATH),
    "timeout": Field(forms.DURATION),
    "proxy_protocol": Field(forms.NETWORK, default=(), many=True),
    "nice": Field(forms.number(-20, 19), default=0),
    "zygote": Field(forms.FLAG, default=False),
    "rlimits": Field(forms.RESOURCE_LIMIT, default=(), many=True),
}
_SERVICES = Items(
    model.Service,
    _SERVICE_FIELDS,
    "programs that answer connections on a port, or are run every so often",
    identity=lambda service: str(service.name),
    fault=_service_fault,
)
_PROBES = Items(
    model.Probe,
    {
        "service": Field(forms.SERVICE, required=True),
        "kind": Field(forms.closed(model.ProbeKind), required=True),
        "port": Field(forms.PORT),
        "login": Field(forms.FLAG, default=True),
        "anonymous": Field(forms.FLAG, default=False),
        "path": Field(forms.ARGUMENT, default="/"),
        "expect": Field(forms.ARGUMENT, default=""),
    },
    "how a client shows that a service works",
    identity=lambda probe: f"{probe.service} by {probe.kind}",
)
# What asks a program to end, by one name or another: SIGWINCH is the gentle one of apache, SIGQUIT of nginx.
_STOP_SIGNALS = (
    "SIGTERM", "SIGQUIT", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGKILL",
)  # fmt: skip
_DAEMONS = Items(
    model.Daemon,
    {
        "name": Field(forms.SERVICE, required=True),
        "program": Field(forms.PROGRAM_PATH, required=True),
        "args": Field(forms.ARGUMENT, default=(), many=True),
        "user": Field(forms.ACCOUNT, default="root"),
        "groups": Field(forms.ACCOUNT, default=(), many=True),
        "isolation": Field(forms.closed(model.Isolation), default=model.Isolation.NAMESPACE),
        "restart": Field(forms.closed(model.Restart), default=model.Restart.ALWAYS),
        "backoff": Field(forms.DURATION, default=60),
        "stop_signal": Field(forms.closed(_STOP_SIGNALS), default="SIGTERM"),
        "stop_timeout": Field(forms.DURATION, default=10),
        "ports": Field(forms.PORT, default=(), many=True),
        "nice": Field(forms.number(-20, 19), default=0),
        "rlimits": Field(forms.RESOURCE_LIMIT, default=(), many=True),
    },
    "programs that run all the time and listen by themselves",
    identity=lambda daemon: str(daemon.name),
)
_HOOKS = Items(
    model.Hook,
    {
        "phase": Field(forms.closed(("built", "published")), required=True),
        "run": Field(forms.ARGUMENT, required=True, many=True, name="argv"),
    },
    "programs of the host to run when a tree is built or published",
    identity=_hook_identity,
    fault=_hook_fault,
)
_ETC = Section(
    model.Etc,
    {
        "skeleton": Words(forms.closed(SKELETON), "the files of /etc that are written"),
        "hostname": Scalar(forms.HOST, "the host name; the domain's own if nothing is said"),
        "timezone": Scalar(forms.ZONE, "the time zone, or host for that of the host"),
        "nameservers": Words(forms.ADDRESS, "name servers; those of the host if nothing is said"),
        "search": Words(forms.HOST, "domains to complete short names with"),
        "motd": Scalar(forms.MESSAGE, "the message of the day"),
    },
    "the skeleton of /etc",
)
_HOME = Section(
    model.Home,
    {
        "layout": Scalar(forms.closed(model.HomeLayout), "/home/bob, or /home/b/bob"),
        "mode": Scalar(forms.MODE, "the mode of homes"),
    },
    "where homes lie",
)
_SCRUB = Section(
    model.Scrub,
    {
        "operations": Words(
            forms.OPERATION, "what is looked for and removed", identity=_sign_off, splits=True
        ),
        "keep": Words(forms.SOURCE, "paths or patterns in the tree that stay"),
        "own": Words(forms.SOURCE, "the domain's own keys, which stay in a living tree"),
    },
    "what is removed before a tree is published",
)
_IMAGE = Section(
    model.Image,
    {
        "entrypoint": Scalar(forms.ARGUMENT, "the program and its first arguments", many=True),
        "cmd": Scalar(forms.ARGUMENT, "arguments that who runs it may replace", many=True),
        "env": Words(forms.VARIABLE, "environment variables", identity=_left_of_equals),
        "user": Scalar(forms.IMAGE_USER, "who runs it: a user, or user:group"),
        "workdir": Scalar(forms.DIRECTORY_PATH, "the working directory"),
        "ports": Words(forms.EXPOSED_PORT, "ports that it answers on"),
        "volumes": Words(forms.TREE_PATH, "directories that should outlive a container"),
        "labels": Words(forms.LABEL, "labels of the image", identity=_left_of_equals),
        "annotations": Words(forms.LABEL, "annotations of the manifest", identity=_left_of_equals),
        "stop_signal": Scalar(forms.SIGNAL, "the signal that stops it"),
        "layers": Scalar(forms.closed(model.Layers), "one layer, or one for each profile"),
    },
    "what an image of the tree says to who runs it",
)

PROFILES = "profiles"
OPERATIONS = "scrub.operations"
TOP: Mapping[str, Key] = {
    PROFILES: Words(forms.PROFILE, "manifests to include, by name; they come before this one"),
    "addresses": Words(forms.ADDRESS, "the addresses of the domain"),
    "link": Scalar(forms.closed(model.LinkMode), "how files get into the tree"),
    "devlog": Scalar(forms.closed(model.DevLog), "a syslog socket of its own, or the shared one"),
    "uid_base": Scalar(forms.UID_BASE, "added to every uid and gid of the tree"),
    "binaries": Items(
        model.Binary,
        {
            "name": Field(forms.PROGRAM, required=True),
            "packages": Field(forms.PACKAGE, default=(), many=True),
            **_OPTIONAL,
        },
        "programs of the host, by name or path, with what they need",
        identity=lambda binary: str(binary.name),
        short="name",
    ),
    "packages": Items(
        model.Package,
        {"name": Field(forms.PACKAGE, required=True), **_OPTIONAL},
        "installed packages of the host, without documentation",
        identity=lambda package: str(package.name),
        short="name",
    ),
    "files": _FILES,
    "directories": _DIRECTORIES,
    "symlinks": _SYMLINKS,
    "devices": _DEVICE_TABLE,
    "templates": _TEMPLATES,
    "users": _USERS,
    "groups": _GROUPS,
    "setuid": Words(forms.TREE_PATH, "paths whose set-id bits stay"),
    "hooks": _HOOKS,
    "services": _SERVICES,
    "daemons": _DAEMONS,
    "probes": _PROBES,
    "etc": _ETC,
    "home": _HOME,
    "scrub": _SCRUB,
    "image": _IMAGE,
}


def plain() -> dict[str, Plain]:
    """Scalars and plain lists, those of sections under their dotted name ("etc.hostname")."""
    found: dict[str, Plain] = {}
    for name, key in TOP.items():
        match key:
            case Scalar() | Words():
                found[name] = key
            case Section():
                found.update({f"{name}.{part}": inner for part, inner in key.keys.items()})
            case Items():
                pass
    return found
