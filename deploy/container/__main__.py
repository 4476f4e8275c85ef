"""The production profile in containers, by Docker Compose.

    python -m deploy.container up | down [--dry-run]

Prints the command, and runs it where Docker with its Compose plugin is there and nobody asked for a dry run. `up` makes
the passwords first, once, in <home>/run/container.env, readable by its owner alone; whoever keeps secrets elsewhere
writes that file.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import typer

from features.private_file import write_private
from features.settings import Settings, load_settings

FOLDER = Path(__file__).resolve().parent
SECRETS = ("POSTGRES_PASSWORD", "BRAID_ERASURE_KEY", "GRAFANA_PASSWORD")
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def env_file(settings: Settings) -> Path:
    """Where the passwords are."""
    return settings.home.resolve() / "run" / "container.env"


def compose(settings: Settings, *arguments: str, gpu: bool) -> list[str]:
    """The command line."""
    files = [FOLDER / "compose.yaml", *([FOLDER / "compose.gpu.yaml"] if gpu else [])]
    named = [part for file in files for part in ("--file", str(file))]
    return ["docker", "compose", *named, "--env-file", str(env_file(settings)), *arguments]


def make_secrets(settings: Settings) -> None:
    """Adds to the env file what it lacks: all of it at first. What stands there stays."""
    path = env_file(settings)
    lines = path.read_text().splitlines() if path.exists() else []
    named = {line.partition("=")[0].strip() for line in lines}
    added = [f"{name}={secrets.token_hex(32)}" for name in SECRETS if name not in named]
    if added:
        write_private(path, "".join(f"{line}\n" for line in [*lines, *added]))


@app.command()
def up(dry_run: bool = typer.Option(False, "--dry-run", help="Only print the command.")) -> None:
    """Builds the image, starts everything and waits until it is healthy."""
    settings = load_settings()
    make_secrets(settings)
    _run(compose(settings, "up", "--build", "--detach", "--wait", gpu=shutil.which("nvidia-smi") is not None), dry_run)


@app.command()
def down(dry_run: bool = typer.Option(False, "--dry-run", help="Only print the command.")) -> None:
    """Stops everything; the shop's volumes stay."""
    _run(compose(load_settings(), "down", gpu=False), dry_run)


def _run(command: list[str], dry_run: bool) -> None:
    print(shlex.join(command), flush=True)
    if dry_run:
        return
    if not _has_compose():
        print("Not run: Docker with its Compose plugin is not here. Run the line above where it is.", file=sys.stderr)
        return
    sys.exit(subprocess.run(command).returncode)


def _has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0


if __name__ == "__main__":
    app()
