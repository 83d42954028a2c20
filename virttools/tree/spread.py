"""Doer: does like jobs on a few threads; worth it where they let go of the interpreter's lock."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

_Job = TypeVar("_Job")


def spread(
    jobs: Sequence[_Job],
    perform: Callable[[_Job], None],
    *,
    threads: int,
    progress: Callable[[int], None],
) -> None:
    """Perform each job once; the first error stops all and is raised.

    progress: told by this thread only how many more are done.
    """
    pending = iter(jobs)
    done: list[_Job] = []
    errors: list[BaseException] = []

    def work(tell: Callable[[], None]) -> None:
        try:
            for job in pending:
                if errors:
                    return
                perform(job)
                done.append(job)
                tell()
        except BaseException as error:  # noqa: BLE001  raised below, in the thread that asked
            errors.append(error)

    told = 0

    def tell() -> None:
        nonlocal told
        count = len(done)
        progress(count - told)
        told = count

    others = [
        threading.Thread(target=work, args=(lambda: None,))
        for _ in range(min(threads, len(jobs)) - 1)
    ]
    for thread in others:
        thread.start()
    work(tell)
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
    tell()
