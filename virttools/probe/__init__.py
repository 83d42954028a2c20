"""The clients of `virt test`, and the stage on which they meet a domain's services."""
