"""Values: what a tree must hold, from TOML text to one merged Manifest."""
