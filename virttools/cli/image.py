"""`virt image`: a tree as an image, for registries, runtimes and CI."""

import os
import re
from typing import Annotated, Any

import typer

from virttools.cli import complete
from virttools.cli.output import Output, size
from virttools.domains import images, orders
from virttools.domains.images import Format, Made, Wanted
from virttools.domains.orders import Order
from virttools.domains.wish import Options, Wish
from virttools.errors import CheckFailed, UsageError
from virttools.image import documents
from virttools.image import push as sending
from virttools.image.documents import Compression
from virttools.manifest import names
from virttools.manifest.load import load

_ENDINGS = (
    (r"\.tar(?:\.gz|\.zst)?|\.tgz|\.tzst|^-", Format.TAR),
    (r"\.squashfs|\.sqfs", Format.SQUASHFS),
    (r"\.oci", Format.OCI),
)


_Domain = Annotated[
    str | None,
    typer.Argument(
        metavar="DOMAIN",
        help="A domain; with -m or -p, what its name would be.",
        autocompletion=complete.domains,
    ),
]
_Out = Annotated[
    str, typer.Option("--output", "-o", metavar="OUT", help="Where to; - is standard output.")
]
_Manifest = Annotated[
    str | None, typer.Option("--manifest", "-m", metavar="FILE", help="Build this manifest.")
]
_Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        "-p",
        help="Build this profile; repeatable.",
        autocompletion=complete.profiles,
    ),
]
_Kind = Annotated[
    str | None,
    typer.Option("--format", "-f", help=f"One of {', '.join(Format)}; else as OUT ends."),
]
_Tags = Annotated[
    list[str] | None, typer.Option("--tag", "-t", help="A tag; repeatable. [default: latest]")
]
_Compression = Annotated[str | None, typer.Option(help="Of layers and tar: gzip, zstd or none.")]
_Arch = Annotated[
    str | None, typer.Option(help="The architecture to write into it [default: this one].")
]
_SourceRoot = Annotated[
    str, typer.Option(metavar="DIR", help="Take programs from the system in DIR, not this one.")
]
_Sboms = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE", help="What it is made of: NAME.spdx.json or NAME.cdx.json; repeatable."
    ),
]
_Kinds = Annotated[
    list[str] | None,
    typer.Option(help="Hang it on an OCI image too: spdx or cyclonedx; repeatable."),
]
_Checksums = Annotated[
    str | None, typer.Option(metavar="FILE", help="The digest of every file, for sha256sum -c.")
]
_References = Annotated[
    list[str] | None,
    typer.Option(metavar="REF", help="Send it there too, as HOST/NAME:TAG; repeatable."),
]
_CheckReproducible = Annotated[
    bool, typer.Option("--check-reproducible", help="Build twice; 1 if the two differ.")
]
_ExitCode = Annotated[
    bool, typer.Option("--exit-code", help="End with 1 if OUT is not what it was.")
]


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Make an image of a domain or a manifest.",
        epilog="Example: virt image -m web.toml -o web.oci --format oci --tag 1.0",
    )(image)


def image(
    ctx: typer.Context,
    domain: _Domain = None,
    out: _Out = "",
    manifest: _Manifest = None,
    profile: _Profiles = None,
    kind: _Kind = None,
    tag: _Tags = None,
    compression: _Compression = None,
    arch: _Arch = None,
    source_root: _SourceRoot = "/",
    sbom: _Sboms = None,
    attach: _Kinds = None,
    checksums: _Checksums = None,
    push: _References = None,
    check_reproducible: _CheckReproducible = False,
    exit_code: _ExitCode = False,
) -> None:
    """Write an image of a domain, or straight from a manifest: equal input makes equal bytes."""
    output: Output = ctx.obj
    wanted = _wanted(out, kind, tag or ["latest"], compression, arch)
    order = Order(
        wanted=wanted,
        options=Options(source_root=source_root),
        sboms=_sboms(sbom or []),
        attached=_attached(attach or [], wanted.format),
        targets=_targets(push or [], wanted.format),
        checksums=checksums,
        subject=_subject(output, domain, manifest, profile or []),
    )
    root = output.settings.root
    orders.require_places(order)
    output.tell_namespace()
    second = orders.again(root, order) if check_reproducible else None
    with output.progress(f"reading {domain or manifest or 'profiles'}") as advance:
        made = orders.fulfil(root, order, advance, second=second)
    _show(output, made, orders.send(order))
    if exit_code and made.is_changed:
        raise typer.Exit(CheckFailed.exit_code)


def _sboms(files: list[str]) -> dict[str, str]:
    """The kind of each file, by its name."""
    found = {}
    for file in files:
        for ending, kind in ((".spdx.json", "spdx"), (".cdx.json", "cyclonedx")):
            if file.endswith(ending):
                found[file] = kind
        if file not in found:
            raise UsageError(
                f"cannot tell what to write into {file}: its name ends neither in .spdx.json nor .cdx.json"
            )
    return found


def _attached(kinds: list[str], kind: Format) -> tuple[str, ...]:
    unknown = [one for one in kinds if one not in images.SBOMS]
    if unknown:
        raise UsageError(f"cannot attach {unknown[0]}: there are {', '.join(images.SBOMS)}")
    if kinds and kind not in (Format.OCI, Format.OCI_ARCHIVE):
        raise UsageError(f"cannot attach to {kind}: only OCI images hold such documents")
    return tuple(dict.fromkeys(kinds))


def _targets(references: list[str], kind: Format) -> tuple[str, ...]:
    if references and kind not in (Format.OCI, Format.OCI_ARCHIVE):
        raise UsageError(
            f"cannot push {kind}: only OCI images go to registries", hint="--format oci"
        )
    return tuple(sending.reference(text) for text in dict.fromkeys(references))


def _subject(
    output: Output, domain: str | None, manifest: str | None, profiles: list[str]
) -> str | Wish:
    """A domain that is there, or what to build."""
    if manifest is None and not profiles:
        if domain is None:
            raise UsageError(
                "cannot make an image: neither a domain nor a manifest is named",
                hint="virt image domain1.com -o domain1.oci, or virt image -m FILE -o OUT",
            )
        return names.domain(domain)
    name = names.domain(domain) if domain else _name(manifest)
    loaded = load(
        name,
        manifest_file=manifest,
        profiles=profiles,
        addresses=(),
        defaults=output.settings.profiles,
    )
    return Wish(name, loaded)


def _name(manifest: str | None) -> str:
    """web.toml is called web inside, if that is a name."""
    stem = os.path.basename(manifest or "image").removesuffix(".toml").lower()
    return stem if re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", stem) else "image"


def _wanted(
    out: str, kind: str | None, tags: list[str], compression: str | None, arch: str | None
) -> Wanted:
    if not out:
        raise UsageError("cannot make an image: no OUT is named", hint="virt image … -o OUT")
    if compression is not None and compression not in list(Compression):
        raise UsageError(f"cannot compress by {compression}: there are {', '.join(Compression)}")
    return Wanted(
        out=out,
        format=_format(out, kind),
        tags=tuple(dict.fromkeys(documents.tag(one) for one in tags)),
        compression=Compression(compression) if compression else None,
        architecture=documents.architecture(arch or os.uname().machine),
        epoch=_epoch(os.environ.get("SOURCE_DATE_EPOCH", "0")),
    )


def _format(out: str, kind: str | None) -> Format:
    if kind is None:
        for ending, found in _ENDINGS:
            if re.search(f"(?:{ending})/*$", out):
                return found
        raise UsageError(
            f"cannot tell a format by the name {out}", hint=f"--format {', '.join(Format)}"
        )
    if kind not in list(Format):
        raise UsageError(f"cannot write format {kind!r}: there are {', '.join(Format)}")
    if out == "-" and kind in (Format.OCI, Format.DIR):
        raise UsageError(f"cannot write {kind} to standard output: it is a folder")
    return Format(kind)


def _epoch(text: str) -> int:
    """https://reproducible-builds.org/specs/source-date-epoch/: a whole number of seconds."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise UsageError(
            f"cannot use SOURCE_DATE_EPOCH={text!r}: it must be seconds since 1970, in digits",
            hint="SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)",
        )
    return int(text)


def _show(output: Output, made: Made, sent: list[tuple[str, str]]) -> None:
    data: dict[str, Any] = {
        "domain": made.domain,
        "output": made.out,
        "format": made.format,
        "entries": made.entries,
        "bytes": made.size,
        "digest": made.digest,
        "changed": made.is_changed,
        "layers": [
            {
                "name": layer.name,
                "digest": layer.digest,
                "diff_id": layer.diff_id,
                "bytes": layer.size,
            }
            for layer in made.layers
        ],
        "pushed": [target for target, _ in sent],
    }
    line = f"wrote {made.out}: {made.format} of {made.entries} entries, {size(made.size)}"
    if made.layers:
        packed = sum(layer.size for layer in made.layers)
        count = len(made.layers)
        line += f", {count} layer{'s' if count > 1 else ''} of {size(packed)}"
    if not made.is_changed:
        line += ", as it was"
    lines = [line, *([made.digest] if made.digest else [])]
    lines += [f"pushed to {target} by {way}" for target, way in sent]
    if made.out == "-":
        for one in lines:
            output.note(one)
        return
    output.result("image", data, [] if output.quiet else lines)
