"""Words that the verbs reading an event log where it lies have in common."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from toka_runtime import paths
from toka_runtime.cli.render import clean
from toka_runtime.errors import SpecError, StoreError
from toka_runtime.specs.units import parse_duration
from toka_runtime.store.schema import DATABASE


def since(text: str) -> datetime:
    """For argparse: a duration before now, or a time."""
    try:
        return datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except SpecError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("a duration such as 10m or 2h, or a time such as 2026-01-31T12:00") from None


def state_dir_of(args: argparse.Namespace) -> Path:
    """The folder that is named, that of the workspace that is named, else the one written last. Raises StoreError."""
    if args.state_dir is not None:
        return args.state_dir
    if args.workspace is not None:
        # The engine behind it takes half a second to import.
        from toka_runtime.client.local import default_state_dir

        return default_state_dir(args.workspace.absolute())
    folder = paths.state_dir() / "fleets"
    logs = [path for path in folder.glob(f"*/{DATABASE}*") if path.is_file()]
    if not logs:
        raise StoreError(f"no runtime has run yet below {folder}", hint="name its state folder with --state-dir")
    newest = max(logs, key=lambda path: path.stat().st_mtime).parent
    print(f"from {clean(str(newest))}", file=sys.stderr)
    return newest
