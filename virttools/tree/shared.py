"""Values: where in a tree files may lie that other trees share (DESIGN 7.3)."""

FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt")
"""The only top folders that get links into the store; contained, those that are folders and no
links are read-only. One list, so that entering need read no record: what is not here is a
domain's own."""
