"""Values: canonical paths of a tree that is only planned, through the links that it will have."""

_LIMIT = 40
"""Links followed before a chain counts as a loop, as in the kernel (path_resolution(7))."""


class Links:
    """The planned symlinks, by canonical path relative to the tree."""

    def __init__(self) -> None:
        self._targets: dict[str, str] = {}

    def add(self, path: str, target: str) -> None:
        self._targets[path] = target

    def canonical_parent(self, path: str) -> str:
        """`path` with its folder resolved, itself as it is: where a file or link is made."""
        parent, _, name = path.strip("/").rpartition("/")
        folder = self.canonical(parent)
        return f"{folder}/{name}" if folder else name

    def canonical(self, path: str) -> str:
        """`path` with every link followed; a loop leaves the rest as it is. Never leaves the tree."""
        waiting = [part for part in reversed(path.split("/")) if part]
        found: list[str] = []
        followed = 0
        while waiting:
            part = waiting.pop()
            if part == "..":
                del found[-1:]
                continue
            if part == ".":
                continue
            found.append(part)
            target = self._targets.get("/".join(found))
            if target is not None and followed < _LIMIT:
                followed += 1
                found.pop()
                if target.startswith("/"):
                    found.clear()
                waiting += [step for step in reversed(target.split("/")) if step]
        return "/".join(found)
