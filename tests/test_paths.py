"""Canonical paths of a tree that is only planned."""

from hypothesis import given
from hypothesis import strategies as st

from virttools.tree.paths import Links


def links(**targets: str) -> Links:
    found = Links()
    for path, target in targets.items():
        found.add(path.replace("__", "/"), target)
    return found


def test_a_merged_usr_leads_every_program_to_one_place() -> None:
    """With bin -> usr/bin, /bin/sh and /usr/bin/sh are one path."""
    merged = links(bin="usr/bin")
    assert merged.canonical_parent("/bin/sh") == "usr/bin/sh"
    assert merged.canonical("/bin") == "usr/bin"


def test_an_absolute_target_starts_again_at_the_tree() -> None:
    """/var/run -> /run takes what lies below along."""
    assert links(var__run="/run").canonical_parent("var/run/utmp") == "run/utmp"


def test_the_last_part_is_not_followed_where_something_is_made() -> None:
    """A file made at a link's path replaces the link, it does not write through it."""
    assert links(etc__mtab="/proc/mounts").canonical_parent("/etc/mtab") == "etc/mtab"


def test_a_loop_ends() -> None:
    """Two links that point to each other do not hang the planner."""
    assert links(a="b", b="a").canonical("a/x").endswith("x")


def test_dots_never_lead_out() -> None:
    """`..` at the top stays at the top, in paths and in targets."""
    assert links(out="../../../etc").canonical("out/passwd") == "etc/passwd"


words = st.sampled_from(["a", "b", "usr", "bin", "..", "."])
paths = st.lists(words, max_size=6).map("/".join)


@given(path=paths, made=st.dictionaries(st.sampled_from(["a", "b", "usr", "usr/bin"]), paths))
def test_a_canonical_path_is_relative_and_plain(path: str, made: dict[str, str]) -> None:
    """Whatever links there are, the result has no dots, no empty parts and does not start at /."""
    found = links(**{key.replace("/", "__"): value for key, value in made.items()}).canonical(path)
    assert all(part not in ("", ".", "..") for part in found.split("/")) or found == ""
