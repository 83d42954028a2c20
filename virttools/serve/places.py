"""Values: where a running server is found."""

SOCKET = ".virt/serve.sock"
"""Where it answers, relative to the root."""
