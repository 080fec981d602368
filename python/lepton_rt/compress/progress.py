"""A progress bar: rich's when installed, else a plain line; none when stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], description: str, enabled: bool = True) -> Iterator[T]:
    """The items, with progress shown on stderr while they are consumed."""
    if not enabled or not sys.stderr.isatty():
        yield from items
        return
    total = len(items) if isinstance(items, Sized) else None
    try:
        from rich.console import Console
        from rich.progress import track as rich_track
    except ImportError:
        yield from _plain(items, description, total)
        return
    yield from rich_track(
        items, description, total=total, console=Console(stderr=True), transient=True
    )


def _plain(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    of = "" if total is None else f"/{total}"
    for done, item in enumerate(items):
        sys.stderr.write(f"\r{description} {done}{of}")
        sys.stderr.flush()
        yield item
    sys.stderr.write(f"\r{description} done{' ' * 12}\n")
