"""Running inside a tree. On the fast way: standard library only, and little of that."""
