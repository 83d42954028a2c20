"""When the server looks what is declared, after domains came, changed or went."""

import shutil
from pathlib import Path

from virttools.serve.following import Calm, Watch


def looks(times: list[float], *, spent: float = 0.0, draining: int = 0) -> list[float]:
    """When it looks, where something changes at those times, and looking takes so long."""
    calm, found = Calm(), []
    for at, until in zip(times, [*times[1:], float("inf")], strict=True):
        calm.note(at)
        while (due := calm.due(draining)) is not None and due < until:
            found.append(round(due, 3))
            calm.looked()
            calm.rest(due + spent, spent)
    return found


def test_nothing_is_due_while_nothing_changes() -> None:
    """So nothing wakes the server up."""
    calm = Calm()
    assert calm.due() is None
    calm.note(10.0)
    calm.looked()
    calm.rest(11.0, 1.0)
    assert calm.due(3) is None


def test_changes_that_follow_each_other_are_one() -> None:
    """A record, its tree a moment later: looked at when both are there."""
    assert looks([10.0, 10.1, 10.25]) == [10.45]


def test_who_never_stops_does_not_keep_it_from_looking() -> None:
    """The first of many is not put off for ever."""
    assert looks([10 + number / 10 for number in range(50)])[0] == 12.0


def test_a_storm_has_few_reloads() -> None:
    """A thousand domains in 100 seconds, where a reload takes one: it looks as often as it can afford."""
    times = [number / 10 for number in range(1000)]
    found = looks(times, spent=1.0)
    assert len(found) == 34
    assert times[-1] <= found[-1] < times[-1] + 4


def test_spawners_of_sets_before_this_one_do_not_pile_up() -> None:
    """While they drain, sessions that last hold each of them."""
    assert looks([101.0, 102.0], draining=30) == [101.2, 116.2]


def test_only_a_domain_is_news(tmp_path: Path) -> None:
    """Its record or its tree, by a rename or gone; not what is written into it, and no other file."""
    root, records = tmp_path, tmp_path / ".virt"
    records.mkdir()
    watch = Watch((str(root), str(records)))
    assert watch.begin() == ""
    (root / "conf.ftp").touch()
    (root / "new").mkdir()
    (records / "rewritten").touch()
    assert not watch.has_changed()
    (records / "rewritten").rename(records / "d1.test.json")
    assert watch.has_changed()
    (root / "new").rename(root / "d1.test")
    assert watch.has_changed()
    (root / "d1.test" / "etc").mkdir()
    (records / "d1.test.json").write_text("again")
    assert not watch.has_changed()
    (root / "d1.test" / "etc").rmdir()
    (root / "d1.test").rmdir()
    assert watch.has_changed()
    assert watch.gone == {"new", "d1.test"}
    (records / "d1.test.json").unlink()
    assert watch.has_changed()


def test_a_folder_that_is_another_one_by_now(tmp_path: Path) -> None:
    """It is news that the old one is gone, the new one is watched from the next look on, and a missing one is said."""
    folder = tmp_path / "records"
    folder.mkdir()
    watch = Watch((str(folder),))
    assert watch.begin() == ""
    folder.rmdir()
    assert watch.has_changed()
    assert watch.begin() == "No such file or directory"
    folder.mkdir()
    assert watch.begin() == ""
    (tmp_path / "d1.test").mkdir()
    (tmp_path / "d1.test").rename(folder / "d1.test")
    assert watch.has_changed()


def test_one_that_is_renamed_is_followed_no_more(tmp_path: Path) -> None:
    """The root, .virt or the records may be put back from elsewhere: news, and the new ones are followed."""
    root, old = tmp_path / "root", tmp_path / "old"
    (root / ".virt/records").mkdir(parents=True)
    watch = Watch((str(root), str(root / ".virt/records")))
    for part in (root / ".virt/records", root / ".virt", root):
        assert watch.begin() == ""
        watch.has_changed()  # that the old one is followed no more
        part.rename(old)
        assert watch.has_changed(), part
        (root / ".virt/records").mkdir(parents=True)
        assert watch.begin() == ""
        watch.has_changed()
        (old / "one.test").mkdir()
        (old / "one.test").rmdir()
        assert part == root / ".virt" or not watch.has_changed(), part
        (root / "one.test").mkdir()
        (root / "one.test").rmdir()
        assert watch.has_changed(), part
        shutil.rmtree(old)


def test_who_follows_nothing_holds_nothing() -> None:
    """An inetd.conf is read when somebody says so."""
    watch = Watch(())
    assert (watch.begin(), watch.fd, watch.has_changed()) == ("", -1, False)
