"""Addresses of domains on the interfaces of the host."""
