"""The documentation names what there is: commands, options, statuses, keys; and its examples hold."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from tests import documents
from tests.documents import HERE, PAGES, Term, section
from virttools import __version__, settings
from virttools.cli import app, serve
from virttools.enter import options as enter
from virttools.errors import VirtError
from virttools.manifest import keys, model, parse
from virttools.manifest.keys import Field, Items, Scalar, Section, Words
from virttools.manifest.load import load
from virttools.manifest.model import Layer
from virttools.serve import wrapper

SKELETON = (
    "NAME",
    "SYNOPSIS",
    "DESCRIPTION",
    "OPTIONS",
    "EXIT STATUS",
    "ENVIRONMENT",
    "FILES",
    "EXAMPLES",
    "SEE ALSO",
)
HELP = {"-h", "--help"}
FAST = {
    "exec": enter.HELP,
    "shell": enter.SHELL_HELP,
    "virtuald": wrapper.HELP,
    "serve": serve.HELP,
}
"""The commands that are served before typer is loaded: their options stand in their help."""

OF_SHELLS = {126, 127, 130, 141}
"""What env(1) and shells say: not executable, not there, interrupted, a closed pipe."""


@cache
def commands() -> Mapping[str, frozenset[str]]:
    """Every command that typer knows, with its options; "" has those before the command."""
    return dict(walk("", typer.main.get_command(app.assemble())))


def walk(name: str, command: Any) -> Iterator[tuple[str, frozenset[str]]]:  # noqa: ANN401  typer's click is private
    inner = getattr(command, "commands", {})
    if not inner or not name or command.invoke_without_command:
        yield name, typer_options(command) | fast_options(name)
    for part, one in inner.items():
        yield from walk(f"{name} {part}".strip(), one)


def typer_options(command: Any) -> frozenset[str]:  # noqa: ANN401  typer's click is private
    found = (
        word
        for parameter in command.params
        if parameter.param_type_name == "option"
        for word in (*parameter.opts, *parameter.secondary_opts)
    )
    return frozenset(found) - HELP


def fast_options(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"--[a-z]+(?:-[a-z]+)*", FAST.get(name, ""))) - HELP


def documented(terms: list[Term]) -> set[str]:
    return {word for term in terms for word in term.options()}


@pytest.mark.parametrize("name", PAGES)
def test_each_page_has_the_one_skeleton(name: str) -> None:
    """Who knows one page knows where to look in the others; each says its version."""
    titles = [one.title for one in documents.page(name)]
    assert [title for title in titles if title in SKELETON] == list(SKELETON)
    assert f'"virttools {__version__}"' in documents.text(f"docs/{name}").split("\n")[0]


@pytest.mark.parametrize("name", PAGES)
def test_each_page_renders_without_a_warning(name: str) -> None:
    """Nothing in a page is lost on groff."""
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("needs groff")
    done = subprocess.run(
        [groff, "-man", "-ww", "-Tutf8", str(HERE / "docs" / name)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    assert done.stdout


def test_the_manual_has_every_command_and_no_other() -> None:
    """What typer knows, virt(1) describes, and it describes nothing else."""
    described = [one.title for one in documents.below("virt.1", "COMMANDS")]
    assert sorted(described) == sorted(name for name in commands() if name)


@pytest.mark.parametrize("name", sorted(commands()))
def test_the_manual_has_every_option_and_no_other(name: str) -> None:
    """The options of each command, short and long, are those that its section describes."""
    where = section("virt.1", name or "OPTIONS")
    assert documented(where.terms()) - HELP == commands()[name]


def test_the_manual_of_virtuald_has_its_options() -> None:
    """virtuald(8) describes the options that its help names."""
    terms = section("virtuald.8", "OPTIONS").terms()
    assert documented(terms) - HELP == fast_options("virtuald")


def test_the_manual_of_serve_has_its_options() -> None:
    """virt-serve(8) describes the options that its help names."""
    terms = section("virt-serve.8", "OPTIONS").terms()
    assert documented(terms) - HELP == fast_options("serve")


def failures(kind: type[VirtError] = VirtError) -> Iterator[type[VirtError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from failures(inner)


def statuses(page: str) -> dict[int, str]:
    terms = section(page, "EXIT STATUS").terms()
    return {int(term.heading): term.body for term in terms}


def test_the_manual_has_every_exit_status_and_no_other() -> None:
    """Each status a failure can end with is described, with the code that JSON gives it."""
    described = statuses("virt.1")
    assert set(described) == {0, *OF_SHELLS, *(kind.exit_code for kind in failures())}
    for kind in failures():
        codes = re.findall(r"[a-z]+(?:-[a-z]+)*", described[kind.exit_code])
        assert kind.code in codes
    assert set(statuses("virtuald.8")) <= set(described)


def written(name: str, value: object) -> str:
    """A default as TOML has it; a key called mode is octal."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return f"0o{value:o}" if name == "mode" else str(value)
        case tuple():
            return "[" + ", ".join(written(name, one) for one in value) + "]"
        case StrEnum() | str():
            return f'"{value}"'
        case _:
            raise AssertionError(value)


def told(name: str, known: Field | Scalar | Words, default: object) -> str:
    """How the heading of a key must end."""
    if isinstance(known, Field) and known.required:
        return "required"
    return "" if default is None else f"default {written(name, default)}"


def parts(name: str) -> dict[str, str]:
    """The keys below a key, with how their headings must end."""
    key = keys.TOP[name]
    if isinstance(key, Items):
        return {part: told(part, known, known.default) for part, known in key.fields.items()}
    if isinstance(key, Section):
        table = getattr(model.Manifest(), name)
        return {part: told(part, known, getattr(table, part)) for part, known in key.keys.items()}
    return {}


def test_the_manual_has_every_key_and_no_other() -> None:
    """Each key of the manifest has a section, in the order of the parser's table or another."""
    described = {one.title for one in documents.below("virt-manifest.5", "OPTIONS")}
    assert described - {"Templates"} == set(keys.TOP)


@pytest.mark.parametrize("name", sorted(keys.TOP))
def test_the_manual_has_every_part_of_a_key_with_its_default(name: str) -> None:
    """The keys of items and tables are described, as required or with the default they have."""
    described = section("virt-manifest.5", name)
    wanted = parts(name)
    headings = {term.heading.split(",")[0]: term.heading for term in described.terms()}
    if wanted:
        assert set(headings) == set(wanted)
    for part, ending in wanted.items():
        assert headings[part].endswith(ending)
        assert bool(ending) == ("default" in headings[part] or "required" in headings[part])
    if isinstance(keys.TOP[name], Scalar):
        default = written(name, getattr(model.Manifest(), name))
        assert re.search(rf"default\s+{re.escape(default)}\.", described.words())


@pytest.mark.parametrize("name", sorted(keys.TOP))
def test_every_key_has_an_example_that_uses_it(name: str) -> None:
    """The section of each key ends with TOML that the parser takes and that sets the key."""
    blocks = section("virt-manifest.5", name).blocks()
    parsed = [parse.parse(Layer(name, block)) for kind, block in blocks if kind == "toml"]
    said = {key.split(".")[0] for one in parsed for key, _ in (*one.scalars, *one.lists)}
    assert said == {name}


def test_the_example_of_a_whole_manifest_can_be_merged(tmp_path: Path) -> None:
    """What virt-manifest(5) gives as an example is a manifest with nothing wrong in it."""
    blocks = section("virt-manifest.5", "EXAMPLES").blocks()
    (example,) = [block for kind, block in blocks if kind == "toml"]
    check(tmp_path, example)


def test_every_manifest_in_the_readme_is_good(tmp_path: Path) -> None:
    """The README's TOML can be used as it stands."""
    blocks = documents.fenced(documents.text("README.md"), "toml")
    assert blocks
    for block in blocks:
        check(tmp_path, block)


def test_every_example_is_a_good_manifest(tmp_path: Path) -> None:
    """What lies in examples/ can be used as it stands."""
    files = sorted((HERE / "examples").glob("*.toml"))
    assert files
    for file in files:
        check(tmp_path, file.read_text(encoding="utf-8"))


def test_the_example_of_settings_is_read(tmp_path: Path) -> None:
    """The virt.toml that virt(1) shows can be used as it stands."""
    (example,) = (b for kind, b in section("virt.1", "EXAMPLES").blocks() if kind == "virt.toml")
    file = tmp_path / "virt.toml"
    file.write_text(example, encoding="utf-8")
    found = settings.load({}, file=str(file))
    assert (found.root, found.profiles) == ("/srv/virtual", ("base", "login"))


def check(folder: Path, text: str) -> None:
    """Load a manifest as `virt create -m` does, on a machine without a site's own profiles."""
    file = folder / "manifest.toml"
    file.write_text(text, encoding="utf-8")
    load("domain1.com", manifest_file=str(file), profiles=(), addresses=(), site=str(folder))


def typed() -> dict[str, list[str]]:
    """The command lines of each document, as they would be typed."""
    found = {
        name: [
            line
            for one in documents.page(name)
            for kind, block in one.blocks()
            if not kind
            for line in documents.commands(block)
        ]
        for name in PAGES
    }
    blocks = documents.fenced(documents.text("README.md"), "console")
    found["README.md"] = [line for block in blocks for line in documents.commands(block)]
    for file in sorted((HERE / "docs").glob("*.md")):
        spans = re.findall(r"`(virt [^`]*)`", file.read_text(encoding="utf-8"))
        found[file.name] = [span.replace(r"\|", "|") for span in spans]
    return found


@pytest.mark.parametrize(("name", "lines"), typed().items())
def test_every_command_line_uses_what_exists(name: str, lines: list[str]) -> None:
    """The commands and options that documents tell to type are there."""
    assert lines, f"{name} has no example"
    for line in lines:
        for words in documents.calls(line):
            unknown = strangers(words[1:])
            assert not unknown, f"{name}: {line}: there is no {unknown}"


def strangers(words: list[str]) -> set[str]:
    """The words of one call that are neither commands, nor options of the command that is called."""
    before = [word for word in words[: first_plain(words)] if word.startswith("-")]
    after = words[first_plain(words) :]
    name = next((one for n in (2, 1) if (one := " ".join(after[:n])) in commands()), None)
    if name is None:
        return {" ".join(after[:2])} if after or not before else set()
    rest = after[len(name.split()) :]
    rest = rest[: rest.index("--")] if "--" in rest else rest
    given = {word.split("=")[0] for word in rest if word.startswith("-")}
    return (given - commands()[name] - HELP) | (set(before) - commands()[""] - HELP)


def first_plain(words: list[str]) -> int:
    """Where the command stands, behind the options and the value of --root."""
    for index, word in enumerate(words):
        if not word.startswith("-") and words[index - 1 : index] != ["--root"]:
            return index
    return len(words)


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("virt create domain1.com --ip 192.0.2.1 -p login", set()),
        ("virt --root /srv --json show domain1.com | head -3", set()),
        ("virt exec --domain domain1.com -- ls --color", set()),
        ("virt frobnicate", {"frobnicate"}),
        ("virt manifest burn x", {"manifest burn"}),
        ("VIRT_ROOT=/srv virt list --all && virt show -z", {"--all", "-z"}),
        ("virt --jsn list", {"--jsn"}),
    ],
)
def test_what_does_not_exist_is_noticed(line: str, unknown: set[str]) -> None:
    """The check of command lines sees unknown commands and options, and nothing else."""
    found = set().union(*(strangers(words[1:]) for words in documents.calls(line)))
    assert found == unknown


def test_the_changelog_has_this_version() -> None:
    """Each version has a section with its day, and there is room for what comes."""
    headings = re.findall(r"^## (.*)$", documents.text("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_the_japanese_guide_says_to_type_the_same() -> None:
    """The two guides have the same blocks in the same order, and as many sections."""
    english, japanese = (documents.text(f"docs/{name}.md") for name in ("hosting", "hosting.ja"))
    blocks, headings = r"^```.*?^```$", r"^## "
    assert re.findall(blocks, japanese, re.MULTILINE | re.DOTALL) == re.findall(
        blocks, english, re.MULTILINE | re.DOTALL
    )
    assert len(re.findall(headings, japanese, re.MULTILINE)) == len(
        re.findall(headings, english, re.MULTILINE)
    )


@pytest.mark.parametrize(
    "name", sorted(str(file.relative_to(HERE)) for file in (HERE / "docs").glob("*.md"))
)
def test_every_link_in_a_document_leads_somewhere(name: str) -> None:
    """The files that documents link to are there, and so are the headings."""
    file = HERE / name
    for target in re.findall(r"\]\((?!https?:)([^)]*)\)", file.read_text(encoding="utf-8")):
        path, _, heading = target.partition("#")
        other = (file.parent / path).resolve() if path else file
        assert other.exists(), f"{name}: {target}"
        titles = (
            re.findall(r"^#+ (.*)$", other.read_text(encoding="utf-8"), re.MULTILINE)
            if heading
            else []
        )
        assert not heading or heading in {one.lower().replace(" ", "-") for one in titles}, target
