"""The `lepton-rt` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code: 0, 1 (failed) or 2 (wrong usage)."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"] or ["--help"]
    try:
        from lepton_rt.cli.app import app
    except ImportError as error:
        if error.name not in {"typer", "rich"}:
            raise
        _complain("the command needs typer and rich: pip install 'lepton_rt[cli]'")
        return 1
    try:
        code = app(args, standalone_mode=False, prog_name="lepton-rt")
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            raise
        return _explain_failure(error)
    return code if isinstance(code, int) else 0


def _explain_failure(error: Exception) -> int:
    """One sentence on stderr; the exit code."""
    from lepton_rt.errors import Error

    wrong_usage = getattr(error, "format_message", None)
    if wrong_usage is not None:
        message = " ".join(str(wrong_usage()).split())
        _complain(message)
        return int(getattr(error, "exit_code", 2))
    message = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, (Error, OSError, ValueError, ImportError, MemoryError)):
        message = f"{type(error).__name__}: {message} (run with --debug for the traceback)"
    _complain(message)
    return 1


def _complain(message: str) -> None:
    print(f"lepton-rt: {message}", file=sys.stderr)
