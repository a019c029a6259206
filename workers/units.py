"""Bytes of the units in which sizes are told."""

GB = 1e9
GIB = 2**30
