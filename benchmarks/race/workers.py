"""The parent's end of `worker.py`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

BENCHMARKS = Path(__file__).parents[1]


class Lost(Exception):
    """The worker could not do what it was told; the text says why."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        """"absent" or "failed"."""


class Worker:
    """A process that runs one network in one variant of one runtime.

    It is stopped while it has nothing to do: threads of its pool that wait by spinning would take
    time from the others.
    """

    def __init__(
        self,
        cache: Path,
        network: str,
        runtime: str,
        variant: str,
        env: Mapping[str, str],
        log: Path,
    ) -> None:
        self.runtime = runtime
        self.variant = variant
        path = os.pathsep.join([str(BENCHMARKS), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, **env}
        environment.pop("OMP_NUM_THREADS", None)  # every runtime is told how many threads to use
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    f"{__package__}.worker",
                    str(cache),
                    network,
                    runtime,
                    variant,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
            )

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer. Raises Lost."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.send_signal(signal.SIGCONT)
            self._process.stdin.write(json.dumps({"do": action, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            self._process.send_signal(signal.SIGSTOP)
        except BrokenPipeError:
            line = ""
        if not line:
            raise Lost("failed", f"the process died with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        for kind in ("absent", "failed"):
            if kind in answer:
                raise Lost(kind, answer[kind])
        return answer

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # of a command that nobody read
                    pipe.close()
