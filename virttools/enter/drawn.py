"""Doer: the picker as questionary draws it: a line to type on above a menu of what it may mean."""

import os
import signal
import termios
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output.vt100 import Vt100_Output

from virttools.enter import listing, matching
from virttools.enter.picker import Question

_ESCAPE_WAITS = 0.1
"""Seconds until Esc is no begin of an arrow key; a line of 1200 baud sends 12 bytes in that time."""

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class _Menu(Completer):
    """What the text so far may mean, the likely ones first."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._digits = len(str(len(question.rows)))

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002  prompt_toolkit passes it by position
    ) -> Iterable[Completion]:
        question, text = self._question, document.text_before_cursor
        for position in matching.near(text, question.names, question.last):
            row = question.rows[position]
            yield Completion(
                row.domain,
                start_position=-len(text),
                display=f"{position + 1:>{self._digits}} {row.domain}",
                display_meta=listing.details(row, question.now),
            )


def ask(tty_fd: int, question: Question) -> int:
    """The position of the row that is chosen. Raises KeyboardInterrupt for Ctrl-C, Ctrl-D and Esc."""
    import questionary

    with ExitStack() as stack:
        stack.enter_context(_restored(tty_fd))
        keys = stack.enter_context(open(tty_fd, encoding="utf-8", closefd=False))
        screen = stack.enter_context(open(tty_fd, "w", encoding="utf-8", closefd=False))
        output = Vt100_Output.from_pty(screen)
        # A serial console would not answer where the cursor is, and be waited for.
        output.enable_cpr = False
        asked = questionary.autocomplete(
            question.text(),
            [],
            completer=_Menu(question),
            validate=lambda text: _verdict(text, question),
            validate_while_typing=False,
            key_bindings=_keys(),
            input=Vt100Input(keys),
            output=output,
        )
        app = asked.application
        app.ttimeoutlen = app.timeoutlen = _ESCAPE_WAITS
        app.pre_run_callables.append(app.current_buffer.start_completion)
        try:
            typed = asked.unsafe_ask()
        except EOFError as error:
            raise KeyboardInterrupt from error
        position = matching.choice(typed, question.names, question.last)
        assert position is not None, typed
        if typed != question.names[position]:
            screen.write(f"{question.names[position]}\n")
    return position


@contextmanager
def _restored(tty_fd: int) -> Iterator[None]:
    """Leave the terminal as it was found, also where a signal ends us in between."""
    found = termios.tcgetattr(tty_fd)

    def end(number: int, _: FrameType | None) -> None:
        termios.tcsetattr(tty_fd, termios.TCSADRAIN, found)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    ending = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _verdict(text: str, question: Question) -> "bool | str":
    """Whether text means one domain; if not, why."""
    if matching.choice(text, question.names, question.last) is not None:
        return True
    count = len(matching.near(text, question.names, question.last))
    return (
        f"{count} domains match: type more, or choose by the arrow keys"
        if count
        else "no such domain"
    )


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape")
    def _(event: KeyPressEvent) -> None:
        event.app.exit(exception=KeyboardInterrupt)

    return keys
