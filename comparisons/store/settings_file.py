"""The settings of a run, kept beside its results, so that other settings never mix with them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wordlight.backends.regular_files import read_json_file
from wordlight.comparisons.store.cells import run_of_cell
from wordlight.comparisons.store.json_file import checksum, write_json
from wordlight.comparisons.store.versions import installed_versions

NAME = "settings.json"
#: Folders of a run's parts.
KEPT = ("samples", "maps", "cells", "words", "failed")

Settings = dict[str, Any]
_AGAIN = (
    "compare with the same settings and --damaged recompute writes it anew where every cell is of "
    "them; else use another folder"
)


def settings_hash(settings: Settings) -> str:
    """A hash of everything that matters; the same settings in another order have the same."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def holds_same_run(folder: Path, settings: Settings) -> bool:
    """Return whether ``folder`` holds a run with exactly these settings (True), or none (False).

    Raises ValueError when it holds one with other settings, naming what differs, or parts of a run
    without settings, or when its settings can't be read.
    """
    path = folder / NAME
    if not path.exists():
        kept = [name for name in KEPT if any((folder / name).glob("**/*.*"))]
        if kept:
            raise ValueError(
                f"{folder} holds results ({', '.join(kept)}) but no {NAME} that says of what: use "
                "another folder"
            )
        return False
    held, _ = read_settings(folder)
    if "metrics" in held:
        frameworks = [str(held.get("framework", "torch")), *held.get("other frameworks", {})]
        raise ValueError(
            f"{folder} holds a run of an earlier release, whose scores can't be taken over: use "
            "another folder. Its maps can be kept, as rows of the new run: --maps "
            f"NAME={folder / 'maps' / frameworks[0]} for each of its methods by NAME"
        )
    # As they read back from the file: tuples are lists there.
    asked = json.loads(json.dumps(settings))
    found = differences(held, asked)
    if found:
        raise ValueError(
            f"{folder} holds a run with other settings ({'; '.join(found)}): use another "
            "folder, or ask for the same"
        )
    return True


def read_settings(folder: Path) -> tuple[Settings, dict[str, Any]]:
    """A run's settings, and what else stands beside them.

    Raises ValueError where there are none, or where they can't be read or were changed.
    """
    path = folder / NAME
    try:
        there = read_json_file(path)
        held, held_hash, about = there["settings"], there["hash"], there.get("about", {})
        # Files of earlier releases have a hash of the settings alone.
        told = there.pop("checksum", None)
        if not (isinstance(held, dict) and isinstance(about, dict)):
            raise TypeError("its settings are no object")
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no run: it has no {NAME}") from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {_AGAIN}") from None
    if held_hash != settings_hash(held) or told not in (None, checksum(there)):
        raise ValueError(f"{path} was changed: {_AGAIN}")
    return held, about


def write_settings(folder: Path, settings: Settings, **about: Any) -> None:
    """Write the settings into ``folder``, by atomic rename; ``about`` is plain data that stands
    beside them and isn't one of them, such as the number of cells."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    data = {
        "hash": settings_hash(settings),
        "settings": settings,
        "about": {"started": started, "versions": installed_versions(), **about},
    }
    write_json(folder / NAME, data, indent=2)


def restore_settings(folder: Path, settings: Settings, **about: Any) -> None:
    """Write settings that were damaged anew, where every cell names these very ones.

    Where a cell doesn't, or there is none, all is left as it is.
    """
    try:
        read_settings(folder)
        return
    except ValueError:
        cells = sorted((folder / "cells").glob("*/*/*.parquet"))
    asked = settings_hash(json.loads(json.dumps(settings)))
    if (folder / NAME).exists() and cells and all(run_of_cell(c) == asked for c in cells):
        write_settings(folder, settings, **about)


def change_about(folder: Path, **changes: Any) -> None:
    """Change what stands beside the settings, by atomic rename; the settings stay."""
    path = folder / NAME
    data = read_json_file(path)
    data.pop("checksum", None)
    data["about"] |= changes
    write_json(path, data, indent=2)


def forget_settings(folder: Path) -> None:
    """Free ``folder`` for a run with other settings."""
    (folder / NAME).unlink(missing_ok=True)


def differences(held: Any, asked: Any, place: str = "") -> list[str]:
    """The settings that differ, a line each."""
    if isinstance(held, dict) and isinstance(asked, dict):
        found: list[str] = []
        for key in sorted(held.keys() | asked.keys()):
            here = f"{place}.{key}" if place else str(key)
            if key not in asked:
                found.append(f"{here} was there and is not asked for now")
            elif key not in held:
                found.append(f"{here} is asked for now and wasn't there")
            else:
                found += differences(held[key], asked[key], here)
        return found
    return [] if held == asked else [f"{place} was {held!r}, now {asked!r}"]
