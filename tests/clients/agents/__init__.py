"""Agents that people use, run without a person against a gateway: Claude Code, Codex, OpenCode, aider."""
