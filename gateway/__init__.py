"""The gateway: OpenAI and Anthropic clients on one side, a fleet of vLLM nodes on the other."""
