"""virttools: a filesystem of its own for every domain of one machine."""

__version__ = "0.1.0"
