"""Scrubbing: what must not be in a tree, found by reading, mended apart from that, and looked for once more."""
