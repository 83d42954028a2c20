"""`virt image`: a tree as an image, for registries, runtimes and CI."""

import os
import re
from contextlib import AbstractContextManager
from typing import Annotated, Any

import typer

from virttools.cli import complete
from virttools.cli.output import Output, size
from virttools.domains import images
from virttools.domains.create import Advance, Options
from virttools.domains.images import Format, Made, Source, Wanted
from virttools.domains.wish import Wish
from virttools.enter import userns
from virttools.errors import CheckFailed, UsageError
from virttools.image import documents, items
from virttools.image import push as sending
from virttools.image.documents import Attachment, Compression
from virttools.image.items import Item
from virttools.manifest import names
from virttools.manifest.load import load

_ENDINGS = (
    (r"\.tar(?:\.gz|\.zst)?|\.tgz|\.tzst|^-", Format.TAR),
    (r"\.squashfs|\.sqfs", Format.SQUASHFS),
    (r"\.oci", Format.OCI),
)


def register(app: typer.Typer) -> None:
    app.command(
        short_help="Make an image of a domain or a manifest.",
        epilog="Example: virt image -m web.toml -o web.oci --format oci --tag 1.0",
    )(image)


def image(
    ctx: typer.Context,
    domain: Annotated[
        str | None,
        typer.Argument(
            metavar="DOMAIN",
            help="A domain; with -m or -p, what its name would be.",
            autocompletion=complete.domains,
        ),
    ] = None,
    out: Annotated[
        str, typer.Option("--output", "-o", metavar="OUT", help="Where to; - is standard output.")
    ] = "",
    manifest: Annotated[
        str | None, typer.Option("--manifest", "-m", metavar="FILE", help="Build this manifest.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            "--profile",
            "-p",
            help="Build this profile; repeatable.",
            autocompletion=complete.profiles,
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--format", "-f", help=f"One of {', '.join(Format)}; else as OUT ends."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", "-t", help="A tag; repeatable. [default: latest]")
    ] = None,
    compression: Annotated[
        str | None, typer.Option(help="Of layers and tar: gzip, zstd or none.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="The architecture to write into it [default: this one].")
    ] = None,
    source_root: Annotated[
        str, typer.Option(metavar="DIR", help="Take programs from the system in DIR, not this one.")
    ] = "/",
    sbom: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="What it is made of: NAME.spdx.json or NAME.cdx.json; repeatable."
        ),
    ] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(help="Hang it on an OCI image too: spdx or cyclonedx; repeatable."),
    ] = None,
    checksums: Annotated[
        str | None, typer.Option(metavar="FILE", help="The digest of every file, for sha256sum -c.")
    ] = None,
    push: Annotated[
        list[str] | None,
        typer.Option(metavar="REF", help="Send it there too, as HOST/NAME:TAG; repeatable."),
    ] = None,
    check_reproducible: Annotated[
        bool, typer.Option("--check-reproducible", help="Build twice; 1 if the two differ.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="End with 1 if OUT is not what it was.")
    ] = False,
) -> None:
    """Write an image of a domain, or straight from a manifest: equal input makes equal bytes."""
    output: Output = ctx.obj
    wanted = _wanted(out, kind, tag or ["latest"], compression, arch)
    options = Options(source_root=source_root)
    boms = _boms(sbom or [])
    attached = _attached(attach or [], wanted.format)
    targets = _targets(push or [], wanted.format)
    wish = _wish(output, domain, manifest, profile or [])
    if wish is None and domain is None:
        raise UsageError(
            "cannot make an image: neither a domain nor a manifest is named",
            hint="virt image domain1.com -o domain1.oci, or virt image -m FILE -o OUT",
        )
    root = output.settings.root
    images.require_place(wanted)
    output.tell_namespace()

    def opened(advance: Advance) -> AbstractContextManager[Source]:
        if wish is None:
            return images.published(root, names.domain(domain or ""))
        return images.built(root, wish, options, advance)

    def other() -> tuple[Item, ...]:
        with opened(lambda _more, _total: None) as source:
            return images.look(source, wanted.epoch)

    second = userns.apart(other) if check_reproducible else None
    with (
        output.progress(f"reading {domain or manifest or 'profiles'}") as advance,
        opened(advance) as source,
    ):
        found = images.look(source, wanted.epoch)
        if second is not None:
            images.refuse_difference(found, second)
        made = images.write(
            source,
            found,
            wanted,
            attachments=_attachments(attached, source, found, wanted, source_root),
            advance=advance,
        )
        _write_beside(boms, checksums, source, found, wanted, source_root)
    sent = [
        (target, sending.push(
            os.path.abspath(out), wanted.format, wanted.tags[0], target,
            has_referrers=bool(attached),
        ))
        for target in targets
    ]  # fmt: skip
    _show(output, made, sent)
    if exit_code and made.is_changed:
        raise typer.Exit(CheckFailed.exit_code)


def _boms(files: list[str]) -> dict[str, str]:
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


def _attached(kinds: list[str], kind: Format) -> list[str]:
    unknown = [one for one in kinds if one not in images.SBOMS]
    if unknown:
        raise UsageError(f"cannot attach {unknown[0]}: there are {', '.join(images.SBOMS)}")
    if kinds and kind not in (Format.OCI, Format.OCI_ARCHIVE):
        raise UsageError(f"cannot attach to {kind}: only OCI images hold such documents")
    return list(dict.fromkeys(kinds))


def _targets(references: list[str], kind: Format) -> list[str]:
    if references and kind not in (Format.OCI, Format.OCI_ARCHIVE):
        raise UsageError(
            f"cannot push {kind}: only OCI images go to registries", hint="--format oci"
        )
    return [sending.reference(text) for text in dict.fromkeys(references)]


def _attachments(
    kinds: list[str], source: Source, found: tuple[Item, ...], wanted: Wanted, source_root: str
) -> list[Attachment]:
    if not kinds:
        return []
    bill = images.bill(source, found, wanted.epoch, source_root=source_root)
    return [images.SBOMS[kind](bill) for kind in kinds]


def _write_beside(
    boms: dict[str, str],
    checksums: str | None,
    source: Source,
    found: tuple[Item, ...],
    wanted: Wanted,
    source_root: str,
) -> None:
    """The documents that lie beside an image."""
    if boms:
        bill = images.bill(source, found, wanted.epoch, source_root=source_root)
        for file, kind in boms.items():
            images.save(file, images.SBOMS[kind](bill).content)
    if checksums is not None:
        images.save(checksums, items.checksums(found).encode("utf-8", "surrogateescape"))


def _wish(
    output: Output, domain: str | None, manifest: str | None, profiles: list[str]
) -> Wish | None:
    """What to build, or None where a domain that is there is meant."""
    if manifest is None and not profiles:
        return None
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
            if re.search(f"(?:{ending})$", out):
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
