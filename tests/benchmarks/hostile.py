"""Gives kft hundreds of hostile inputs: each is an error that names it, or the right answer.

Command: KERAS_BACKEND=torch python tests/benchmarks/hostile.py [--most 100] [--kind CSV]
Each kind runs in a process of its own, which is killed if it hangs. An input fails if the error is
not kft's (a ValueError, TypeError or OSError raised by kft whose message names the argument or
file), if it passes in silence, or if it takes more than 10 s of processor time or 2 GB of memory.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SECONDS, WAITING, MEMORY = 10, 90, 2 * 2**30  # processor time; wall-clock time; bytes
ROOT = Path(__file__).resolve().parents[2]
FINE = ("refused", "read")
KINDS = ("FASTA", "CSV", "images", "checkpoints", "adapters", "caches", "arguments", "command line")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--most", type=int, help="inputs in all, drawn at random; all by default")
    parser.add_argument("--kind", help="one kind of input")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # a kind, in this process
    given = parser.parse_args()
    if given.run:
        run(given.run, given.most)
        return
    chosen = [given.kind] if given.kind else KINDS
    most = given.most and -(-given.most // len(chosen))
    results = {kind: in_process(kind, most) for kind in chosen}
    show(results)
    if any(one["outcome"] not in FINE for found in results.values() for one in found):
        sys.exit(1)


def all_kinds():
    """{name: function that makes its cases}, imported only by processes that run them."""
    sys.path[:0] = [str(ROOT / "tests")]
    import hostile_files
    import hostile_models
    import wrong_arguments

    return {
        "FASTA": hostile_files.fasta,
        "CSV": hostile_files.csv,
        "images": hostile_files.images,
        "checkpoints": hostile_models.checkpoints,
        "adapters": hostile_models.adapters,
        "caches": hostile_models.caches,
        "arguments": wrong_arguments.arguments,
        "command line": hostile_models.command_lines,
    }


def in_process(kind, most):
    """The results of one kind, from another process."""
    command = [sys.executable, __file__, "--run", kind, *(["--most", str(most)] if most else [])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, env=environment)
        size, seen = 0, time.time()
        while process.poll() is None:
            time.sleep(0.5)
            now = os.fstat(output.fileno()).st_size
            size, seen = (now, time.time()) if now > size else (size, seen)
            if time.time() - seen > 3 * WAITING:
                process.kill()
        output.seek(0)
        lines = [json.loads(line) for line in output if line.startswith('{"')]
    found = [line for line in lines if "outcome" in line]
    if process.returncode:
        last = next((line["begins"] for line in reversed(lines) if "begins" in line), "the start")
        detail = f"status {process.returncode}"
        found.append({"name": last, "outcome": "killed the process", "detail": detail})
    return found


def run(kind, most):
    """Run the inputs of one kind, and print a line of JSON before and after each."""
    cases = list(all_kinds()[kind]())
    if most and most < len(cases):
        cases = random.Random(0).sample(cases, most)
    signal.signal(signal.SIGPROF, too_long)
    signal.signal(signal.SIGALRM, too_long)
    os.chdir("/tmp")
    for case in cases:
        print(json.dumps({"begins": case.name}), flush=True)
        print(json.dumps({"name": case.name, **result(case)}), flush=True)


class TooLong(BaseException):
    """Raised by a signal; not an `Exception`, so that nothing catches it."""


def too_long(*_):
    raise TooLong


def result(case):
    from hostile_cases import judged

    before, began = peak(), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        outcome, detail = judged(case, TooLong)
    except TooLong:
        outcome, detail = "too slow", ""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
    if peak() - before > MEMORY:
        outcome = "too much memory"
    seconds = round(time.process_time() - began, 2)
    return {"outcome": outcome, "detail": detail[:300], "seconds": seconds}


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(results):
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Hostile inputs, {os.environ.get('KERAS_BACKEND')}")
    for column in ("kind", "inputs", "refused by name", "read", "failed", "slowest (s)"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    total: Counter = Counter()
    for kind, found in results.items():
        counts = Counter(one["outcome"] for one in found)
        failed = sum(n for outcome, n in counts.items() if outcome not in FINE)
        slowest = max((one.get("seconds", 0) for one in found), default=0)
        row = [len(found), counts["refused"], counts["read"], failed]
        total.update(dict(zip("nrda", row, strict=True)))
        table.add_row(kind, *map(str, row), f"{slowest:.1f}")
    table.add_row("all", *(str(total[key]) for key in "nrda"), "")
    console = Console(width=110)
    for kind, found in results.items():
        for one in found:
            if one["outcome"] not in FINE:
                console.print(f"{kind} | {one['name']!r:.70} | {one['outcome']} | "
                              f"{one['detail']!r:.200}", markup=False, soft_wrap=True)  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    main()
