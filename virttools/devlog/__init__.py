"""dev/log: the sockets that programs in trees log to, and what became of what they said."""
