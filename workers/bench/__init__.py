"""Measures a running node: a ladder of loads over several workloads, and whether its cache changes answers."""
