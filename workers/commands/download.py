"""`fleetgate-worker download`: fetch the checkpoint of a profile."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from workers.commands.edge import ProfileFolder, ProfileName, told
from workers.errors import MissingTool
from workers.profiles.load import find_profile


@told
def download(
    name: ProfileName,
    model_dir: Annotated[Path, typer.Option(help="Where the checkpoint goes: a local NVMe disk.")],
    revision: Annotated[str | None, typer.Option(help="A commit, tag or branch; else the profile's.")] = None,
    workers: Annotated[int, typer.Option(help="Files fetched at once.", min=1)] = 8,
    profiles: ProfileFolder = None,
) -> None:
    """Find, check, fetch and prove. Reads HF_TOKEN and HF_ENDPOINT. Run it again to resume."""
    try:
        from workers import download as fetch
    except ImportError as missing:
        raise MissingTool("download needs huggingface_hub: pip install 'fleetgate[worker-tools]'") from missing
    profile = find_profile(name, profiles or ())
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    hub = fetch.Hub(os.environ.get("HF_ENDPOINT"), os.environ.get("HF_TOKEN"))
    found = fetch.find_repository(profile, revision, hub, console.print)
    console.print(f"{found.repository} at {found.commit}: {len(found.sizes)} files, {found.total / 1e9:,.1f} GB")
    fetch.check_folder(found, model_dir)
    fetch.check_space(found, model_dir)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(found.repository.rsplit("/", 1)[-1], total=found.total)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        fetch.download(found, model_dir, hub, show, workers, bar.console.print)
    console.print(f"complete by its index: {model_dir}")
