"""Runs lint and the whole suite: one process per backend, and two for tests that need none.

Command: python tests/suite.py [--long]

Two processes run at a time, and all run to their end. What each prints is kept
in out/tests; the last lines sum up what passed, failed and was skipped, and name what failed.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "tests"
AT_ONCE = 2
# On 2 cores, with and without the programs that an earlier run has compiled.
MINUTES = "about 10 minutes"
LONG_MINUTES = "40 to 60 minutes"
PYTEST = [sys.executable, "-m", "pytest", "--color=no"]
PROGRAMS = ["tests/test_recipes.py", "tests/test_docs.py"]  # a third of what runs once
TESTS = {  # name: backend, further arguments; the longest first, so that two cores end together
    "once": ("torch", ["-m", "once", *(f"--ignore={path}" for path in PROGRAMS)]),
    "jax": ("jax", ["-m", "not once", "--in-turn"]),
    "tensorflow": ("tensorflow", ["-m", "not once", "--in-turn"]),
    "torch": ("torch", ["-m", "not once", "--in-turn"]),
    "programs": ("torch", ["-m", "once", *PROGRAMS]),
}
LINT = [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["lint-imports", "--no-logo"],
    ["deptry", "."],
    ["mypy"],
]


class Job:
    """A process, what it prints, and what came of it."""

    def __init__(self, name, command, backend=None):
        self.name, self.report = name, None
        self.log = OUT / f"{name}.log"
        if backend:
            self.report = OUT / f"{name}.xml"
            self.report.unlink(missing_ok=True)
            command = [*command, f"--junit-xml={self.report}"]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=self.log.open("w"), stderr=subprocess.STDOUT,
            # Small models gain nothing from a second thread.
            env={**os.environ, "OMP_NUM_THREADS": "1", "KERAS_BACKEND": backend or "torch"},
        )  # fmt: skip

    def ended(self):
        if self.process.poll() is None:
            return False
        self.seconds = time.monotonic() - self.begun
        return True

    def progress(self):
        shares = re.findall(r"\[ *(\d+)%\]", self.log.read_text(errors="replace"))
        return f"{self.name} {shares[-1] if shares else 0}%" if self.report else self.name

    def counts(self):
        """Passed, failed and skipped tests; None where the process left no report."""
        if not self.report or not self.report.exists():
            return None
        suite = ElementTree.parse(self.report).getroot().find("testsuite")
        total, failed, errors, skipped = (
            int(suite.get(key)) for key in ("tests", "failures", "errors", "skipped")
        )
        return total - failed - errors - skipped, failed + errors, skipped

    def failures(self):
        """A line for each test that failed, or one for the process."""
        text = self.log.read_text(errors="replace")
        lines = re.findall(r"^((?:FAILED|ERROR) \S.*)$", text, re.M)
        if self.process.returncode and not lines:
            lines = [f"ended with exit status {self.process.returncode}"]
        return [f"{self.name}: {line}" for line in lines]


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def lint():
    """Runs all linters, also after one has found something."""
    found = [subprocess.run([Path(sys.executable).parent / tool, *rest]) for tool, *rest in LINT]
    return max(process.returncode for process in found)


def run(waiting):
    """Runs (name, command, backend) two at a time; yields each job that has ended."""
    begun, said, running = time.monotonic(), 0.0, []
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                running.append(Job(*waiting.pop(0)))
            time.sleep(0.2)
            for job in [job for job in running if job.ended()]:
                running.remove(job)
                yield job
            if running and time.monotonic() - begun - said > 30:
                said = time.monotonic() - begun
                print(
                    f"{minutes(said)}  {', '.join(job.progress() for job in running)}", flush=True
                )
    finally:
        for job in running:  # after Ctrl-C
            job.process.terminate()


def summary(jobs):
    rows = [("", "passed", "failed", "skipped", "time")]
    for job in jobs:
        counts = job.counts() or ("", "yes" if job.process.returncode else "no", "")
        rows.append((job.name, *map(str, counts), minutes(job.seconds)))
    for name, *cells in rows:
        print(f"{name:<12}" + "".join(f"{cell:>9}" for cell in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--long", action="store_true", help="also what takes an hour")
    parser.add_argument("--lint", action="store_true", help="lint alone, in this process")
    args = parser.parse_args()
    if args.lint:
        return lint()
    OUT.mkdir(parents=True, exist_ok=True)
    longer = ["--long"] if args.long else []
    waiting = [
        (name, [*PYTEST, *options, *longer], backend) for name, (backend, options) in TESTS.items()
    ]
    waiting.append(("lint", [sys.executable, __file__, "--lint"], None))
    print(
        f"Lint and the suite ({', '.join(TESTS)}): {LONG_MINUTES if args.long else MINUTES} on "
        f"2 cores. What each prints is in {OUT.relative_to(ROOT)}.",
        flush=True,
    )
    begun, jobs, failed = time.monotonic(), [], []
    for job in run(waiting):
        jobs.append(job)
        if job.process.returncode:
            failed += job.failures()
            print(f"\n--- {job.name} failed; from {job.log.relative_to(ROOT)}:")
            print(job.log.read_text(errors="replace")[-20_000:], flush=True)
    print()
    summary(jobs)
    took = minutes(time.monotonic() - begun)
    if failed:
        print("\n" + "\n".join(failed) + f"\n\nFailed, after {took}.")
        return 1
    print(f"\nAll passed in {took}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
