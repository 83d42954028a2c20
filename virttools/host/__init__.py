"""Readers: what this machine has that a manifest asks for; they change nothing."""
