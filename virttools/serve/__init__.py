"""Services: which tree answers a connection. On the fast way: standard library only."""
