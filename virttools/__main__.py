"""Starts the program: as `python -m virttools`, or as the file that bin/virt runs.

bin/virt gives the name it was called by as first argument.
"""

import sys


def _take_package() -> None:
    """Import virttools from where this file lies, whatever else the path holds.

    The folder comes last afterwards: nothing in it hides the standard library.
    """
    folder = __file__.rpartition("/virttools/")[0]
    sys.path.insert(0, folder)
    import virttools  # noqa: F401  what follows finds its modules through this one

    del sys.path[0]
    if folder not in sys.path:
        sys.path.append(folder)


def _start() -> int:
    if __package__:
        called = ["virt", *sys.argv[1:]]
    else:
        _take_package()
        called = sys.argv[1:]
    from virttools.dispatch import main

    return main(called)


if __name__ == "__main__":
    sys.exit(_start())
