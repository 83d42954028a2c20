"""Doer: tells what a command that runs in many domains says, line by line, and how it ended in each."""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_STREAMS = {1: "stdout", 2: "stderr"}


class Report:
    """What was told of the domains in names; a status for each that is done.

    is_tolerant: a reader that went away is no failure any more.
    """

    __slots__ = ("_as_json", "_names", "_statuses", "is_tolerant")

    def __init__(self, names: "Sequence[str]", *, as_json: bool) -> None:
        self._names = names
        self._as_json = as_json
        self.is_tolerant = False
        self._statuses: dict[str, int] = {}

    def lines(
        self, domain: str, number: int, lines: "list[bytes]", *, is_partial: bool = False
    ) -> None:
        """Tell lines (without their ends) of a domain's stream 1 or 2; is_partial: none ended it."""
        if self._as_json:
            for line in lines:
                told: dict[str, object] = {"domain": domain, "stream": _STREAMS[number]}
                told["line"] = _text(line)
                if is_partial:
                    told["partial"] = True
                self._tell(told)
        else:
            head = domain.encode() + b": "
            self._write(number, b"".join([head + line + b"\n" for line in lines]))

    def done(self, domain: str, status: int) -> None:
        """Note how the command ended in a domain."""
        self._statuses[domain] = status

    def end(self, stopped_by: "int | None" = None) -> int:
        """Tell the whole; returns the highest status."""
        failed = {name: status for name, status in self._statuses.items() if status}
        worst = max(failed.values(), default=0)
        left = len(self._names) - len(self._statuses)
        parts = [f"{len(self._statuses) - len(failed)} good", f"{len(failed)} failed"]
        if stopped_by is not None:
            parts.append(f"{left} not begun: stopped by signal {stopped_by}")
        count = "1 domain" if len(self._names) == 1 else f"{len(self._names)} domains"
        whole = f"{count}: {', '.join(parts)}"
        if self._as_json:
            self._tell_document(whole, is_good=not failed and not left)
        else:
            rows = [f"virt: {name}: status {failed[name]}" for name in sorted(failed)]
            self._write(2, "".join(f"{row}\n" for row in [*rows, f"virt: {whole}"]).encode())
        return worst

    def _tell_document(self, whole: str, *, is_good: bool) -> None:
        rows = [{"domain": name, "status": self._statuses.get(name)} for name in self._names]
        error = {"code": "command-failed", "message": whole, "file": None, "line": None}
        self._tell(
            {
                "version": 1,
                "command": "exec",
                "status": "ok" if is_good else "error",
                "data": {"domains": rows},
                "errors": [] if is_good else [{**error, "hint": None}],
            }
        )

    def _tell(self, document: "dict[str, object]") -> None:
        import json

        self._write(1, json.dumps(document).encode() + b"\n")

    def _write(self, number: int, text: bytes) -> None:
        try:
            while text:
                text = text[os.write(number, text) :]
        except OSError:
            if not self.is_tolerant:
                raise


def _text(line: bytes) -> str:
    r"""Bytes that are no UTF-8 are shown as `\xff`."""
    return line.decode("utf-8", "backslashreplace")
