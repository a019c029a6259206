"""Cloud-init user data: a machine that installs, downloads, and starts the systemd service at every boot."""

import shlex
from pathlib import PurePosixPath
from typing import Any

from workers.unit import systemd
from workers.unit.literal_yaml import dump
from workers.unit.node import VLLM, NodeUnit

HOME = "/var/lib/fleetgate"

AS_SERVICE = f"systemd-run --wait --pipe -p User=fleetgate -p Environment=HOME={HOME}"
"""Runs a command as the service will run: as its user, with its secrets, read by systemd's rules."""


def render(node: NodeUnit) -> str:
    """The text of user data. It holds no secret: every process on the machine can ask the cloud for it."""
    service = f"{node.name}.service"
    document: dict[str, Any] = {
        "users": [
            "default",
            {"name": "fleetgate", "system": True, "homedir": HOME, "shell": "/usr/sbin/nologin"},
        ],
        "package_update": True,
        "packages": ["python3-venv", "iproute2"],
        "write_files": [
            {
                "path": f"/etc/systemd/system/{service}",
                "permissions": "0644",
                "content": systemd.render(node),
            },
            {"path": f"{HOME}-setup", "permissions": "0700", "content": _setup(node, service)},
        ],
        "runcmd": [[f"{HOME}-setup"]],
    }
    return "#cloud-config\n" + dump(document)


def _setup(node: NodeUnit, service: str) -> str:
    own = str(PurePosixPath(node.program).parents[1])
    secrets = shlex.quote(node.secrets)
    lines = [
        "#!/bin/sh",
        "# Runs once, as root, on Debian or Ubuntu. The image has the NVIDIA driver.",
        "set -eu",
        f"install -d -m 0755 {shlex.quote(str(PurePosixPath(node.secrets).parent))}",
        f"install -m 0600 /dev/null {secrets}",
        *([f"({node.secrets_from}) > {secrets}"] if node.secrets_from else []),
        *_environment(own, node.package),
        *(_environment(VLLM, *node.vllm) if node.vllm else ()),
        f"install -d -o fleetgate -g fleetgate {HOME} {shlex.join(node.folders)}",
        *([f"{AS_SERVICE} -p EnvironmentFile={secrets} {shlex.join(node.download)}"] if node.download else []),
        "systemctl daemon-reload",
        f"systemctl enable --now {service}",
    ]
    return "\n".join(lines) + "\n"


def _environment(folder: str, *packages: str) -> tuple[str, str]:
    return (
        shlex.join(("python3", "-m", "venv", folder)),
        shlex.join((f"{folder}/bin/pip", "install", *packages)),
    )
