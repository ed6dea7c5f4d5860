"""Running a submission in a process of its own, with limits, and hearing its verdict."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from kft.course.assignments import Assignment
from kft.course.limits import MIB, Limits, Watch, lives, size_of
from kft.course.students import Student
from kft.course.submissions import Source
from kft.course.verdicts import Result, Verdict, none_of
from kft.messages import harmless, listed

_PAUSE = 0.2  # seconds between two looks at a submission
_STARTING = 300  # seconds that imports may take
_ENDING = 10  # seconds that it may take to end by itself
_ANSWERING = 10  # seconds that the server may take between two submissions
_LONGEST = MIB  # bytes of a message
_MESSAGES = 1000  # that may wait to be read


class Runner:
    """Runs submissions on a backend, one after the other. Use it in a `with` block.

    Args:
        backend: The backend: "jax", "torch" or "tensorflow".
        limits: What each submission may use.
    """

    def __init__(self, backend: str, limits: Limits) -> None:
        self.backend = backend
        self.limits = limits
        self._server: _Server | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end_server()

    def run(
        self,
        folder: Path,
        source: Source,
        student: Student,
        assignment: Assignment,
        with_hidden: bool = True,
    ) -> Verdict:
        """Run a submission and its checks.

        Args:
            folder: Its folder, of which a copy is used.
            source: Its program.
            student: Whose it is.
            assignment: The assignment.
            with_hidden: Whether hidden checks run, too.

        Raises:
            RuntimeError: The checks themselves are wrong, or no process can be started.
        """
        with tempfile.TemporaryDirectory(prefix="kft-", ignore_cleanup_errors=True) as place:
            copy = Path(place, "work")
            shutil.copytree(folder, copy, ignore=_links)
            request = {
                "folder": str(copy),
                "output": f"{place}/output.txt",
                "trace": f"{place}/trace.txt",
                "name": source.name,
                "cells": source.cells,
                "student": asdict(student),
                "seed": int(student.generator("keras").integers(2**32)),
            }
            answer = {
                "token": secrets.token_hex(),
                "lines": [asdict(line) for line in assignment.lines],
                "sources": {x: assignment.source(x) for x in ("checks.py", "data.py")},
                "with_hidden": with_hidden,
            }
            self._server = self._server or _Server(self.backend)
            watch = Watch(self.limits, self._server.processes, copy, Path(place, "output.txt"))
            stopped, verdict = _followed(self._server, watch, request, answer)
            seconds = time.monotonic() - watch.begun
            if not self._server.settle():
                self._end_server()
            if stopped:
                told = stopped + _where(Path(place, "trace.txt"), source)
                tail = _tail(Path(place, "output.txt"))
                return none_of(assignment, told, output=tail, seconds=seconds)
        if "broken" in verdict:
            raise RuntimeError(f"the checks of {assignment.name} failed:\n{verdict['broken']}")
        if "changed" in verdict:
            names = listed(verdict["changed"], 3)
            reason = f"it replaces code that the checks use: {names}"
            return none_of(assignment, reason, seconds=seconds)
        return Verdict(
            tuple(Result(**result) for result in verdict["results"]),
            failures=tuple(verdict["failures"]),
            seconds=seconds,
            processor_seconds=verdict["processor_seconds"],
        )

    def _end_server(self) -> None:
        if self._server:
            self._server.end()
            self._server = None


def _followed(
    server: _Server, watch: Watch, request: dict[str, Any], answer: dict[str, Any]
) -> tuple[str, dict]:
    """Start a submission and watch it; return why it was stopped, and its verdict."""
    verdict: dict[str, Any] = {}
    told: set[str] = set()
    server.send(request)
    for message in server.messages(watch):
        told |= (news := set(message) - told)
        if "stopped" in news:
            return message["stopped"], {}
        if "begun" in news:
            watch.begun = time.monotonic()
        if "executed" in news:
            server.send(answer)
        if message.get("token") == answer["token"]:
            verdict = message["verdict"]
        if "ended" in news:
            done = verdict and message["ended"] == 0
            return "" if done else _ended(message["ended"]), verdict
    return "it ended the process that grades it, before its checks", {}


class _Server:
    """The process that forks for each submission (`kft.course.server`)."""

    def __init__(self, backend: str) -> None:
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "MPLBACKEND": "Agg",
            "CUDA_VISIBLE_DEVICES": "",  # no process can use a device that its parent has begun to
            "JAX_PLATFORMS": "cpu",
            "HF_HUB_OFFLINE": "1",
            "PYTHONHASHSEED": "0",  # the same order of sets, and so the same grades, in each run
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - until `end`
        self._process = subprocess.Popen(
            [*_without_network(), sys.executable, "-m", "kft.course.server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment,
        )  # fmt: skip
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MESSAGES)
        threading.Thread(target=self._listen, daemon=True).start()
        first = self._lines.get(timeout=_STARTING)
        if first is None:
            self._log.seek(0)
            raise RuntimeError(
                f"the process that runs submissions did not start:\n"
                f"{self._log.read()[-2000:].decode(errors='replace')}"
            )

    def _listen(self) -> None:
        stream = self._process.stdout
        for line in iter(lambda: stream.readline(_LONGEST) if stream else b"", b""):
            self._lines.put(line)
        self._lines.put(None)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message to the server, or to the submission that runs."""
        stream = self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            if stream:
                stream.write(json.dumps(message).encode() + b"\n")
                stream.flush()

    def messages(self, watch: Watch) -> Iterator[dict[str, Any]]:
        """Yield messages until the server ends; {"stopped": reason} if a limit is broken."""
        looked = time.monotonic()
        while True:
            line: bytes | None = b""
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=_PAUSE)
            if line is None:
                return
            with contextlib.suppress(ValueError):
                if isinstance(message := json.loads(line), dict):
                    yield message
            if time.monotonic() - looked > _PAUSE:
                if reason := watch.broken():
                    yield {"stopped": reason}
                looked = time.monotonic()

    def processes(self) -> list[psutil.Process]:
        """Return the processes of the submission that runs, the first first."""
        with contextlib.suppress(psutil.Error):
            return [x for x in psutil.Process(self._process.pid).children(True) if lives(x)]
        return []

    def settle(self) -> bool:
        """Kill what a submission has left, skip its messages; return whether the server lives."""
        self._kill_all()
        mark = secrets.token_hex()
        self.send({"settle": mark})
        waited = time.monotonic() + _ANSWERING
        while (left := waited - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if line is None:
                return False
            if mark.encode() in line:
                return True
        return False

    def _kill_all(self) -> None:
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            psutil.wait_procs(processes, timeout=1)

    def end(self) -> None:
        """End the server, and kill all that it has started."""
        self._kill_all()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            if self._process.stdin:
                self._process.stdin.close()  # it ends by itself
            self._process.wait(_ENDING)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


@cache
def _without_network() -> tuple[str, ...]:
    """Return the command that starts a program without network, where the system has one."""
    command = ("unshare", "-rn")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ()
    return command


def _links(folder: str, names: list[str]) -> list[str]:
    """Return which files of a folder are links, which may lead anywhere."""
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


def _tail(path: Path) -> str:
    """Return the last lines of what was printed."""
    if not path.exists():
        return ""
    with path.open("rb") as stream:
        stream.seek(max(0, size_of(path) - 2000))
        lines = stream.read().decode(errors="replace").splitlines()[-15:]
    return "\n".join(harmless(line) for line in lines)


def _where(trace: Path, source: Source) -> str:
    """Return where the program was, from the stack that it wrote on a signal."""
    pattern = rf'File "{re.escape(source.name)}", line (\d+)'
    found = re.search(pattern, trace.read_text(errors="replace")) if trace.exists() else None
    return f", at {source.place(int(found[1]))}" if found else ""


def _ended(status: int) -> str:
    """Say how the process of a submission ended, before it had a verdict."""
    if status >= 0:
        return f"it ended its process with exit status {status}, before its checks"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"its process crashed ({name}), before its checks"
