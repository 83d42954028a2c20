"""Doer: does copies on a few threads where they are big enough for that to pay."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from virttools.tree.actions import Action

# A big file is read, hashed and written without the interpreter's lock; for small ones threads would
# only wait for each other. Below the second figure a thread costs more than it gains.
_BIG = 128 << 10
_WORTH_THREADS = 4 << 20


@dataclass(frozen=True, slots=True)
class Job:
    """The copying of one file of `size` bytes, wanted by an action."""

    action: Action
    size: int
    copy: Callable[[], None]


def spread(
    jobs: Sequence[Job],
    perform: Callable[[Job], None],
    *,
    threads: int,
    progress: Callable[[int], None],
) -> None:
    """Perform each job once; the first error stops all and is raised.

    progress: told by this thread only how many more are done.
    """
    big = [job for job in jobs if job.size >= _BIG]
    helpers = threads - 1 if sum(job.size for job in big) >= _WORTH_THREADS else 0
    work = _Work(iter(big), perform)
    others = [threading.Thread(target=work.help) for _ in range(helpers)]
    for thread in others:
        thread.start()
    try:
        for job in jobs:
            if job.size < _BIG and not work.errors:
                perform(job)
                progress(1)
        work.help()
    finally:
        work.stop()
        for thread in others:
            thread.join()
    if work.errors:
        raise work.errors[0]
    progress(len(big))


class _Work:
    """Jobs that several threads take from one iterator, whose next() is atomic."""

    def __init__(self, jobs: Iterator[Job], perform: Callable[[Job], None]) -> None:
        self.errors: list[BaseException] = []
        self._jobs = jobs
        self._perform = perform
        self._is_stopped = False

    def help(self) -> None:
        try:
            for job in self._jobs:
                if self._is_stopped or self.errors:
                    return
                self._perform(job)
        except BaseException as error:  # noqa: BLE001  raised in the thread that asked for it all
            self.errors.append(error)

    def stop(self) -> None:
        self._is_stopped = True
