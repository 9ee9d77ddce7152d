"""The data folder that commands take."""

import os
from pathlib import Path

import click

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Data folder of `up`, to use in place of PSQL_* and MINIO_*.",
)


def default_data_dir() -> Path:
    """Return the default data folder of `up`: by XDG Base Directory for a user, below /var/lib for root."""
    if os.geteuid() == 0:
        return Path("/var/lib/model-registry")
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "model-registry"
