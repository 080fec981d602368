"""Where measured choices are kept: a JSON file per processor, library version and kernel lists."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lepton_rt
from lepton_rt import _core
from lepton_rt.plan_cache import checked_folder

Choice = dict[str, str]


def processor() -> str:
    """The processor's model, as its maker names it."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "CPU part")
    found: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in wanted:
                found.setdefault(key.strip(), value.strip())
    except OSError:
        pass
    return "; ".join(f"{key} {found[key]}" for key in wanted if key in found) or (
        f"{platform.machine()} {platform.processor()}"
    )


class TuningStore:
    """Choices by signature, in a folder of the user's own.

    Choices that were measured on another processor, or of other kernels, are in other files. Any
    number of processes may add at once: they take turns, and readers see whole files only. What
    cannot be read counts as empty.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._identity = {
            "processor": processor(),
            "version": lepton_rt.__version__,
            "kernels": _core.kernel_digest(),
        }
        digest = hashlib.sha256(json.dumps(self._identity).encode()).hexdigest()
        self.path = checked_folder(folder) / f"tuning-{digest[:32]}.json"

    def read(self) -> dict[str, Choice]:
        """Signature → choice; {} for the preferred kernel."""
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict) or found.get("of") != self._identity:
            return {}
        return _choices(found.get("choices"))

    def add(self, choices: Mapping[str, Choice]) -> dict[str, Choice]:
        """Adds choices to what is there by now; returns all of them."""
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            merged = {**self.read(), **choices}
            temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({"of": self._identity, "choices": merged}))
            temporary.replace(self.path)
        return merged


def _choices(found: Any) -> dict[str, Choice]:
    if not isinstance(found, dict):
        return {}
    return {
        key: choice
        for key, choice in found.items()
        if isinstance(choice, dict) and all(isinstance(value, str) for value in choice.values())
    }
