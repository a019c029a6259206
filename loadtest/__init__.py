"""Load tests: the gateway beside its rivals, driven from outside through processes and sockets only."""
