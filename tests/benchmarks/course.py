"""All solutions of the assignments on all backends, and all wrong submissions.

Command: make course [ONLY="1 explore"]
"""

import argparse
import importlib.util
import itertools
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from assignments import cases, problems, run, submit

from kft.course.assignments import assignments, find
from kft.course.limits import Limits
from kft.course.running import Runner

BACKENDS = [x for x in ("jax", "tensorflow", "torch") if importlib.util.find_spec(x)]
MOST_SECONDS = 120  # of a solution


def solution(runner, assignment, student):
    """(seconds, seconds of computing, problems) of the solution with the data of a student."""
    with tempfile.TemporaryDirectory() as place:
        folder = submit(assignment, Path(place, student), student_id=student)
        verdict = run(runner, assignment, folder)
    found = [f"{x.id}: {x.reason} ({x.place})" for x in verdict.results if x.reason]
    found += [*verdict.failures, *([verdict.output] if verdict.output else [])]
    if verdict.processor_seconds > MOST_SECONDS:  # other programs may run meanwhile
        found.append(f"computed for more than {MOST_SECONDS} s")
    return verdict.seconds, verdict.processor_seconds, found


def wrong(runner, assignment, case):
    """What is wrong with the verdict on a wrong submission."""
    with tempfile.TemporaryDirectory() as place:
        runner.limits = Limits(case.seconds, case.memory)
        verdict = run(runner, assignment, submit(assignment, Path(place, "ada"), case))
        runner.limits = Limits()
    return list(problems(case, verdict))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="numbers or names of assignments")
    parser.add_argument("--backends", nargs="*", default=BACKENDS)
    parser.add_argument("--wrong-on", default="torch", help="backend of wrong submissions")
    parser.add_argument("--students", nargs="+", default=["ada"], help="whose solutions are run")
    parser.add_argument("--no-wrong", action="store_true", help="solutions alone")
    parser.add_argument("--cases", nargs="*", help="names of wrong submissions [all]")
    args = parser.parse_args()
    chosen = [find(name) for name in args.only] or assignments()
    failed = []
    for backend in args.backends:
        with Runner(backend, Limits()) as runner:
            for assignment, student in itertools.product(chosen, args.students):
                seconds, computed, found = solution(runner, assignment, student)
                says = "; ".join(found) or "passes"
                took = f"{seconds:>6.1f} s, {computed:>5.1f} s of a core"
                print(f"{assignment.name:<24}{backend:<12}{student:<8}{took}  {says}", flush=True)
                failed += [f"{assignment.name} on {backend}, {student}: {x}" for x in found]
    if not args.no_wrong:
        with Runner(args.wrong_on, Limits()) as runner:
            for assignment in chosen:
                for case in cases(assignment):
                    if args.cases is not None and case.name not in args.cases:
                        continue
                    found = wrong(runner, assignment, case)
                    says = "; ".join(found) or f"refused: {case.says}"
                    print(f"{assignment.name:<24}{case.name:<42}{says}", flush=True)
                    failed += [f"{assignment.name}, {case.name}: {x}" for x in found]
    print("\n" + ("\n".join(failed) or "All as they must be."))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
