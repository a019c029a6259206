"""The workers: what starts, checks and describes the vLLM server of a node."""
