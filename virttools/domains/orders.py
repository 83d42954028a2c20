"""Orders of images: one to make, the documents beside it and on it, and the registries it goes to."""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from virttools.domains import images
from virttools.domains.images import Made, Source, Wanted
from virttools.domains.wish import Advance, Options, Wish
from virttools.enter import userns
from virttools.errors import UsageError
from virttools.image import items, output
from virttools.image import push as sending
from virttools.image.documents import Attachment
from virttools.image.items import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is asked for. subject: a domain that is there, or what to build.

    sboms: the kind of document to write, by its file. attached: the kinds to hang on the image.
    checksums: a file for the digests. targets: references to send it to.
    """

    wanted: Wanted
    subject: str | Wish
    options: Options = field(default_factory=Options)
    sboms: Mapping[str, str] = field(default_factory=dict)
    attached: tuple[str, ...] = ()
    checksums: str | None = None
    targets: tuple[str, ...] = ()


def require_places(order: Order) -> None:
    """Refuse before anything is built what could not be written. Raises DomainExists, UsageError, ApplyError."""
    images.require_place(order.wanted)
    places = {os.path.realpath(order.wanted.out): order.wanted.out}
    for file in (*order.sboms, *filter(None, [order.checksums])):
        output.require_file(file)
        other = places.setdefault(os.path.realpath(file), file)
        if other is not file:
            raise UsageError(
                f"cannot write {file}: something else of this call goes there too",
                hint="name another file for one of them",
            )


def again(root: str, order: Order) -> tuple[Item, ...]:
    """What the image would hold, looked up by a process of its own. Raises as `fulfil` does."""

    def look() -> tuple[Item, ...]:
        with _opened(root, order, lambda _more, _total: None) as source:
            return images.look(source, order.wanted.epoch)

    return userns.apart(look)


def fulfil(
    root: str, order: Order, advance: Advance, *, second: Sequence[Item] | None = None
) -> Made:
    """Make the image and its documents.

    second: what `again` found. Raises CheckFailed where that differs, and as `images.write` does.
    """
    with _opened(root, order, advance) as source:
        found = images.look(source, order.wanted.epoch)
        if second is not None:
            images.refuse_difference(found, second)
        attachments = _documents(order, source, found, order.attached)
        made = images.write(source, found, order.wanted, attachments=attachments, advance=advance)
        written = _documents(order, source, found, tuple(order.sboms.values()))
        for file, document in zip(order.sboms, written, strict=True):
            images.save(file, document.content)
        if order.checksums is not None:
            content = items.checksums(found).encode("utf-8", "surrogateescape")
            images.save(order.checksums, content)
    return made


def send(order: Order) -> list[tuple[str, str]]:
    """Push the image that was made; every target, and what sent it. Raises HostLacks, ApplyError."""
    wanted = order.wanted
    layout, has_referrers = os.path.abspath(wanted.out), bool(order.attached)
    return [
        (
            target,
            sending.push(
                layout, wanted.format, wanted.tags[0], target, has_referrers=has_referrers
            ),
        )
        for target in order.targets
    ]


def _opened(root: str, order: Order, advance: Advance) -> AbstractContextManager[Source]:
    if isinstance(order.subject, str):
        return images.published(root, order.subject)
    return images.built(root, order.subject, order.options, advance)


def _documents(
    order: Order, source: Source, found: Sequence[Item], kinds: Sequence[str]
) -> list[Attachment]:
    """What an image of it is made of, once for each of these kinds."""
    if not kinds:
        return []
    bill = images.bill(source, found, order.wanted.epoch, source_root=order.options.source_root)
    return [images.SBOMS[kind](bill) for kind in kinds]
