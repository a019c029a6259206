"""The clients that `fleetgate connect` knows."""

from gateway.cli.connect.aider import AIDER
from gateway.cli.connect.by_hand import CLINE, OPENWEBUI
from gateway.cli.connect.claude import CLAUDE
from gateway.cli.connect.client import Client
from gateway.cli.connect.codex import CODEX
from gateway.cli.connect.continue_dev import CONTINUE
from gateway.cli.connect.opencode import OPENCODE

CLIENTS: dict[str, Client] = {
    client.name: client for client in (CLAUDE, CODEX, OPENCODE, AIDER, CLINE, CONTINUE, OPENWEBUI)
}
