"""Reads a command line of `launch` for a machine that is not this one."""

import typer

from workers.argv import Binding
from workers.catalog.prices import checked_usd
from workers.commands.launch import launch
from workers.commands.words import split_command
from workers.errors import ConfigError
from workers.gpus.metrics import parse_address
from workers.launch.identity import labels_of, node_id_of
from workers.launch.machines import machine_of, role_of
from workers.launch.spot import parse_source
from workers.profile import Profile


def check_launch(profile: Profile, words: list[str]) -> None:
    """Have `launch` read its command line, without running it. A wrong option, value or role ends as it does
    there. What only that machine can tell (its files, its vLLM) is left to it.
    """
    for word in words:
        if "://" in word and "@" in word:
            raise ConfigError("a URL after -- has a user or a password: put it into the file of --secrets")
    app = typer.Typer(add_completion=False)
    app.command()(launch)
    read = typer.main.get_command(app).make_context("launch", words).params
    role = role_of(profile, read["role"], read["head"])
    machine_of(profile, role, read["head"], read["address"], read["rank"])
    parse_address(read["metrics"])
    for source in read["spot"] or ():
        if source.startswith("file:/"):
            continue  # its folder is one of the other machine
        parse_source(source, read["spot_poll_seconds"])
    labels_of(read["label"] or ())
    if read["node_id"] is not None:
        node_id_of(read["node_id"], profile, Binding())
    checked_usd(read["price"])
    for option in ("program", "command"):
        if read[option] is not None:
            split_command(f"--{option}", read[option])
