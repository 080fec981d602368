"""Where `Session(cache=True)` keeps plans: a folder of the user's own, one file per compilation.

Its plans together are at most $LEPTON_CACHE_MB large; those used longest ago go first. Nothing is
locked: a session that maps a removed plan keeps it until it ends, one that comes too late for it
compiles anew, and processes that remove at the same time at worst remove more than they had to.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import mmap
import os
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import lepton_rt
from lepton_rt import _core
from lepton_rt.custom import registered_domains
from lepton_rt.errors import InputError
from lepton_rt.loading import existing

if TYPE_CHECKING:
    from lepton_rt.compiler import Options

Buffer = Union[bytes, mmap.mmap]

_DEFAULT_LIMIT_MB = 4096
# A file that is still being written is younger than this, in seconds.
_ABANDONED = 3600

# How protobuf writes the entry of a tensor that says in which file its data is: key and value of a
# StringStringEntryProto. Names are shorter than 128 bytes, so their length takes one byte.
_MENTION = b"\x08location"
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")


def user_folder() -> Path:
    """$XDG_CACHE_HOME/lepton_rt, or ~/.cache/lepton_rt."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lepton_rt"


def checked_folder(folder: Path | None = None) -> Path:
    """The folder, made if it is not there, for this user alone.

    Raises:
        InputError: it belongs to someone else, or others may write to it: they could plant plans.
    """
    folder = user_folder() if folder is None else folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(f"the cache folder {folder} must belong to you and to nobody else")
    return folder


def size_limit() -> int:
    """Bytes that the plans of a folder may take: $LEPTON_CACHE_MB times 2^20, or 4 GB.

    Raises:
        InputError: the variable is no whole number, or negative.
    """
    given = os.environ.get("LEPTON_CACHE_MB") or str(_DEFAULT_LIMIT_MB)
    if not given.isdecimal():
        raise InputError(f"LEPTON_CACHE_MB is {given!r}, not a number of megabytes")
    return int(given) << 20


def mark_used(plan: Path) -> None:
    """Makes the entry the one used last."""
    with contextlib.suppress(OSError):  # removed meanwhile
        os.utime(plan)


def remove_oldest(folder: Path) -> None:
    """Removes the entries used longest ago until the rest fits `size_limit`.

    Also what writers that were killed have left.
    """
    now, found = time.time(), []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.suffix == ".plan":
                found.append((status.st_mtime_ns, path, status.st_size))
            elif ".plan." in path.name and now - status.st_mtime > _ABANDONED:
                path.unlink()
    excess = sum(size for _, _, size in found) - size_limit()
    for _, path, size in sorted(found):
        if excess <= 0:
            return
        excess -= size
        with contextlib.suppress(OSError):  # by another process
            path.unlink()


def entry(model: Any, options: Options, folder: Path | None = None) -> Path | None:
    """The file that a compilation is kept in: its name is the digest of all it depends on.

    None where that cannot be told: for an ONNX file whose external data cannot be found out, and
    when custom operators are registered, whose code may change.

    Raises:
        InputError: the model is no file and no bytes, or the folder is not the user's own.
    """
    data, beside = _contents(model)
    is_lepton = isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".lepton"
    parts = [] if beside is None or is_lepton else _external(data, beside)
    if parts is None or registered_domains():
        return None
    key = {
        "version": lepton_rt.__version__,
        "kernels": _core.kernel_digest(),
        "compiler": compiler_digest(),
        "isa": options.isa,
        "optimise": options.optimise,
        "state": None if options.state is None else sorted(options.state.items()),
        "lepton": is_lepton,
        "tune": _tuned_for(options),
        "precision": options.precision,
    }
    digest = hashlib.sha256(json.dumps(key).encode())
    for part in (data, *parts):
        digest.update(hashlib.sha256(part).digest())
    return checked_folder(folder) / f"{digest.hexdigest()}.plan"


def _tuned_for(options: Options) -> Any:
    if options.tune is None:
        return None
    from lepton_rt.tuning_store import processor

    return [processor(), sorted((name, list(dims)) for name, dims in options.tune.items())]


@functools.cache
def compiler_digest() -> str:
    """SHA-256 over the package's Python sources: a pass may change between two commits."""
    digest = hashlib.sha256()
    root = Path(lepton_rt.__file__).parent
    for path in sorted(root.glob("*.py")) + sorted(
        path for room in ("graph", "passes", "lowering") for path in (root / room).rglob("*.py")
    ):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _contents(model: Any) -> tuple[Buffer, Path | None]:
    """The model's bytes, and the folder its external data would be in."""
    if isinstance(model, (str, os.PathLike)):
        path = existing(model)
        return _mapped(path), path.parent
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model), None
    if type(model).__name__ == "ModelProto":
        return model.SerializeToString(deterministic=True), None
    raise InputError("cache needs a model file, its bytes or an onnx.ModelProto")


def _external(data: Buffer, beside: Path) -> list[Buffer] | None:
    """Names and contents of the files that external tensors use; None when that is not certain."""
    if data.find(_MENTION) < 0:
        return []
    found = list(_LOCATION.finditer(data))
    if len(found) != len(re.findall(_MENTION, data)):
        return None
    names = {data[match.end() : match.end() + match.group(1)[0]] for match in found}
    parts: list[Buffer] = []
    for name in sorted(names):
        path = beside / os.fsdecode(name)
        if b"\0" not in name and path.is_file():
            parts += [name, _mapped(path)]
    return parts


def _mapped(path: Path) -> Buffer:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
