"""A systemd service.

systemd expands `%` and `$` in command lines and splits them at blanks: `quote` keeps words as they are.
"""

from pathlib import PurePosixPath

from workers.unit.node import FIND_ADDRESS, VLLM, NodeUnit

HOME = "fleetgate"
ADDRESS = "/run/fleetgate/address"
STANDARD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def render(node: NodeUnit) -> str:
    """The text of a `.service` file."""
    lines = [
        "# Put it into /etc/systemd/system/ and run: systemctl daemon-reload && systemctl enable --now NAME",
        f"# {node.secrets} has to be there, root's and mode 0600, be it empty: NAME=VALUE lines, such as",
        "# FLEETGATE_WORKER_SECRET, VLLM_API_KEY, and FLEETGATE_WORKER_REDIS where its URL has a password.",
        "[Unit]",
        f"Description={_plain(f'fleetgate node: {node.profile.title}')}",
        "Wants=network-online.target",
        "After=network-online.target",
        "",
        "[Service]",
        "Type=exec",
        "User=fleetgate",
        "Group=fleetgate",
        f"StateDirectory={HOME}",
        f"WorkingDirectory=/var/lib/{HOME}",
        f"Environment=HOME=/var/lib/{HOME}",
        f"Environment={quote(f'PATH={_path(node)}', command=False)}",
        *(f"Environment={quote(f'{name}={value}', command=False)}" for name, value in node.environment.items()),
        f"EnvironmentFile={_plain(node.secrets)}",
        *_address(node),
        f"ExecStart={' '.join(quote(word) for word in node.command)}",
        "# The launcher starts a dead server again by itself; it ends with 1 when that has become pointless.",
        "Restart=on-failure",
        "RestartSec=30",
        "# SIGTERM goes to the launcher alone, which drains; what is left after the drain is killed.",
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        f"TimeoutStopSec={node.stop_seconds}",
        "LimitNOFILE=65536",
        "LimitMEMLOCK=infinity",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "PrivateTmp=yes",
        "ProtectSystem=full",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def quote(word: str, command: bool = True) -> str:
    """One word as systemd reads it back; `command`: in a command line, where `$` is expanded."""
    text = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    text = text.replace("$", "$$") if command else text
    return f'"{text}"' if not word or any(c in word for c in " \t;'\"\\") else text


def _path(node: NodeUnit) -> str:
    """Where vLLM is found: beside the launcher, or in an environment of its own."""
    return f"{PurePosixPath(node.program).parent}:{VLLM}/bin:{STANDARD_PATH}"


def _address(node: NodeUnit) -> list[str]:
    """Where no address is given, it is found at each start and handed over in a file."""
    if node.host is not None:
        return []
    script = f"{FIND_ADDRESS}; echo FLEETGATE_WORKER_HOST=$FLEETGATE_WORKER_HOST > {ADDRESS}"
    return [
        f"EnvironmentFile=-{ADDRESS}",
        "RuntimeDirectory=fleetgate",
        f"ExecStartPre=/bin/sh -c {quote(script)}",
    ]


def _plain(text: str) -> str:
    """A value without quotes: one line, which no backslash joins to the next."""
    return " ".join(text.replace("\\", "/").split()).replace("%", "%%")
