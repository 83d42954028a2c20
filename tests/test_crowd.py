"""Who wants to a target that is flooded lets others go first."""

from virttools.serve.crowd import MOST, Crowd, Waiting


def waiting(fd: int) -> Waiting:
    return Waiting(fd, 2, 7, ("192.0.2.1", 21), ("192.0.2.9", 4711))


def test_a_target_is_flooded_for_a_second_after_it_refused_somebody() -> None:
    crowd = Crowd()
    assert not crowd.has_room_for(7, 10.0)
    crowd.refuse(7, 10.0)
    assert (crowd.has_room_for(7, 10.9), crowd.has_room_for(8, 10.9)) == (True, False)
    assert not crowd.has_room_for(7, 11.1)


def test_it_is_served_in_order_when_nobody_else_came_and_now_and_then() -> None:
    crowd = Crowd()
    for fd in range(3):
        crowd.add(waiting(fd))
    assert crowd.is_due(somebody_came=False)
    assert [crowd.next().fd for _ in range(len(crowd))] == [0, 1, 2]
    due = [crowd.is_due(somebody_came=True) for _ in range(80)]
    assert sum(due) == 10


def test_it_has_an_end() -> None:
    """What it has no room for is refused at once, as ever."""
    crowd = Crowd()
    crowd.refuse(7, 10.0)
    for fd in range(MOST):
        assert crowd.has_room_for(7, 10.0)
        crowd.add(waiting(fd))
    assert not crowd.has_room_for(7, 10.0)
