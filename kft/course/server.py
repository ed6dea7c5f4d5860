"""The process that runs submissions: `python -m kft.course.server`, started by `running`.

It imports kft once, and forks for each submission. Parent and child speak in lines of JSON over
stdin and stdout; a submission's own stdin is empty, and what it prints goes to a file. The checks
and the token that makes a verdict count are sent only after the program has ended.

The limits stop mistakes and tricks in Python. They are no wall against somebody who attacks the
machine with native code: for that, grade in a container.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, BinaryIO, NoReturn

import keras

from kft.course.assignments import Line
from kft.course.students import Student
from kft.course.submissions import Source
from kft.course.verdicts import judged
from kft.course.work import Work, run

_OFTEN_USED = (
    "backbones", "comparison", "data", "exploration", "models", "plots", "preparation", "reporting",
    "training.fitting",
)  # fmt: skip
_CHECKED = ("kft", "keras", "numpy")
_LARGEST_FILE = 2**30  # bytes


def main() -> None:
    """Run the submissions that stdin names until it is closed."""
    for name in _OFTEN_USED:
        importlib.import_module(f"kft.{name}")
    keras.utils.set_random_seed(0)  # imports TensorFlow on each backend, and so once
    _end_with_parent()
    _keep_orphans()
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    _send(replies, {"ready": True})
    for line in iter(requests.readline, b""):
        request = json.loads(line)
        if "folder" not in request:  # all earlier messages are behind this reply
            _bury_orphans()
            _send(replies, {"settled": request.get("settle")})
            continue
        if not hasattr(os, "fork"):  # Windows: a process for each
            _run_one(request)
        if (child := os.fork()) == 0:
            _run_one(request)
        _, status = os.waitpid(child, 0)
        _send(replies, {"ended": os.waitstatus_to_exitcode(status)})


def _send(stream: BinaryIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _end_with_parent() -> None:
    """Have this process killed when its parent ends, also if that is killed."""
    set_parent_death_signal = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


def _keep_orphans() -> None:
    """Have processes whose parents end become children of this one, where they are found."""
    set_child_subreaper = 36
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _bury_orphans() -> None:
    """Take note of the end of processes that submissions have left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run_one(request: dict[str, Any]) -> NoReturn:
    """Run a submission and its checks in this process, and end it."""
    status = 1
    try:
        _end_with_parent()
        requests, replies = _own_channel(request["output"])
        _shut_in(request["folder"], request["trace"])
        keras.utils.set_random_seed(request["seed"])
        source = Source(request["name"], tuple((first, code) for first, code in request["cells"]))
        before = _code()
        _send(replies, {"begun": True})
        work = run(source, Student(**request["student"]))
        _send(replies, {"executed": True})
        answer = json.loads(requests.readline())
        after = _code()
        changed = [name for name, value in before.items() if after.get(name) is not value]
        verdict = {"changed": sorted(changed)} if changed else _verdict(work, answer)
        _send(replies, {"token": answer["token"], "verdict": verdict})
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)  # no code of the submission runs after the verdict


def _verdict(work: Work, answer: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict of the checks, or how they failed: then the submission is not to blame."""
    lines = tuple(Line(**line) for line in answer["lines"])
    try:
        return judged(work, lines, answer["sources"], answer["with_hidden"])
    except Exception:
        return {"broken": traceback.format_exc(limit=-3)}


def _own_channel(output: str) -> tuple[BinaryIO, BinaryIO]:
    """Move stdin and stdout elsewhere; what is printed from now on goes to a file."""
    requests, replies = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    printed = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(nothing, 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    return requests, replies


def _shut_in(folder: str, trace: str) -> None:
    """Let this process write only in a folder, reach no network and end no other process."""
    if hasattr(os, "setsid"):
        os.setsid()
    os.chdir(folder)
    sys.path.append(folder)  # last, so that no file there stands for a module of kft
    for name in ("TMPDIR", "KFT_CACHE"):
        os.environ[name] = folder
    tempfile.tempdir = None  # to be looked up again
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE, _LARGEST_FILE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if hasattr(faulthandler, "register"):  # the grader asks where an endless loop is
        stream = open(trace, "w")  # noqa: SIM115 - it stays open
        faulthandler.register(signal.SIGUSR1, file=stream, all_threads=False)
    roots = [folder, os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)]
    sys.addaudithook(_guard([os.path.realpath(root) for root in roots], os.getpid()))


def _guard(roots: list[str], process: int) -> Callable[[str, tuple[Any, ...]], None]:
    """Return a hook that refuses connections, writing elsewhere, and signals to others."""
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    changing = {
        "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1,
        "os.chmod": 1, "os.link": 2, "os.symlink": 2, "shutil.rmtree": 1,
    }  # fmt: skip
    busy = False

    def inside(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):  # a file that is open
            return True
        real = os.path.realpath(os.fsdecode(path))
        own = any(real == root or real.startswith(root + os.sep) for root in roots)
        return own or real.startswith(("/dev/", "/proc/self/", f"/proc/{process}/"))

    def guard(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True  # finding out where a path leads is no event of its own
        try:
            if event in ("socket.connect", "socket.sendto", "socket.bind"):
                if isinstance(arguments[1], tuple):
                    raise ConnectionRefusedError(f"there is no network here: {arguments[1]}")
            elif event == "socket.getaddrinfo":
                raise ConnectionRefusedError(f"there is no network here: {arguments[0]}")
            elif event in ("os.kill", "os.killpg"):
                if arguments[0] != process:
                    raise PermissionError("a submission cannot send signals to other processes")
            elif event in changing or (event == "open" and (arguments[2] or 0) & writing):
                for path in arguments[: changing.get(event, 1)]:
                    if not inside(path):
                        raise PermissionError(f"a submission writes in its own folder, not {path}")
        finally:
            busy = False

    return guard


def _code() -> dict[str, Any]:
    """Return functions, classes and methods of what the checks use, to see what is replaced."""
    found: dict[str, Any] = {}
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and name.partition(".")[0] in _CHECKED:
            for key, value in list(vars(module).items()):
                if isinstance(value, FunctionType | type):
                    found[f"{name}.{key}"] = value
                if isinstance(value, FunctionType):
                    found[f"{name}.{key}()"] = value.__code__
                if isinstance(value, type) and value.__module__ == name:
                    found |= {
                        f"{name}.{key}.{inner}": method
                        for inner, method in list(vars(value).items())
                        if isinstance(method, FunctionType | property | classmethod)
                    }
    return found


if __name__ == "__main__":
    main()
