"""Images of trees: what is in one, as layers, and in the formats that others read."""
