"""Values: jinja2 templates as functions from a context to bytes. The first one loads jinja2.

What stands in a template is the site's own and trusted; what is put into it is not.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from virttools.errors import ManifestError, Problem
from virttools.manifest.forms import nearest

Render = Callable[[Mapping[str, object]], bytes]

_MARKS = re.compile(r"\{[{%#]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def compiled(name: str, text: str, words: tuple[str, ...]) -> Render:
    """The template as a function; kept, so that the next domain has it for nothing.

    name: for messages. words: what a context can have, to tell what was meant.
    Raises ManifestError, here or when called, with the template's line.
    """
    plain = not _MARKS.search(text)
    return _constant(text) if plain else _template(name, text, words)


def _constant(text: str) -> Render:
    content = text.encode()
    return lambda _: content


@lru_cache(maxsize=512)
def _template(name: str, text: str, words: tuple[str, ...]) -> Render:
    import jinja2

    try:
        template = _environment().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise _unusable(name, error.lineno, str(error.message)) from error

    def render(context: Mapping[str, object]) -> bytes:
        try:
            text: str = template.render(context)
            return text.encode()
        except Exception as error:  # a template can raise whatever an expression can
            line = _line(error, template.filename)
            raise _unusable(name, line, _cause(error, words)) from error

    return render


@lru_cache(maxsize=1)
def _environment() -> Any:  # noqa: ANN401  jinja2.Environment, which is not loaded with this module
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701  plain text of /etc; `field` and `word` guard it
        loader=None,
    )
    environment.filters["field"] = field
    environment.filters["word"] = word
    return environment


def field(value: object) -> str:
    """A field of passwd(5) or group(5). Raises ValueError where it would end field or line."""
    text = str(value)
    if ":" in text or _CONTROL.search(text):
        raise ValueError(f"{text!r} cannot be a field: it holds a colon or a control character")
    return text


def word(value: object) -> str:
    """One word of a line. Raises ValueError where it is empty, or would be more than one."""
    text = str(value)
    if not text or _CONTROL.search(text) or text.split() != [text] or text.startswith("#"):
        raise ValueError(f"{text!r} cannot be one word of a line")
    return text


def _cause(error: Exception, words: tuple[str, ...]) -> str:
    unknown = re.fullmatch(r"'(\w+)' is undefined", str(error))
    hint = nearest(unknown[1], words) if unknown else ""
    return f"{error}, {hint}" if hint else str(error) or type(error).__name__


def _line(error: Exception, filename: str | None) -> int:
    """The template's line: jinja2 writes it into the traceback, innermost last."""
    found = 0
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == (filename or "<template>"):
            found = step.tb_lineno
        step = step.tb_next
    return found


def _unusable(name: str, line: int, cause: str) -> ManifestError:
    file = name if name.startswith("/") else f"templates/{name}"
    return ManifestError(
        f"cannot render template {name}: {cause}", problems=(Problem(file, line, cause),)
    )
