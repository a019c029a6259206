"""Starts a node's vLLM, watches over it, tells the gateways about it, and ends it without breaking a stream."""
