"""Which flags a vLLM version has: read from its sources, from its help, or from a recorded list."""
