"""Do the tests that compare numbers pass whatever the processor can do?

Command: python tests/benchmarks/instruction_sets.py --equal [--backends jax torch tensorflow]

Runs each test of parity, rounding or equality under several instruction sets and with one and two
threads, and prints a row per backend, setting and number of threads. Needs about an hour.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "torch": {
        f"{aten}, oneDNN {onednn}": {"ATEN_CPU_CAPABILITY": aten, "ONEDNN_MAX_CPU_ISA": onednn,
                                     "MKL_ENABLE_INSTRUCTIONS": mkl}
        for aten, onednn, mkl in (
            ("default", "SSE41", "SSE4_2"), ("avx2", "AVX2", "AVX2"),
            ("avx512", "AVX512_CORE", "AVX512"),
        )
    },
    "jax": {isa: {"XLA_FLAGS": f"--xla_cpu_max_isa={isa}"} for isa in ("SSE4_2", "AVX2", "AVX512")},
    "tensorflow": {
        "without oneDNN": {"TF_ENABLE_ONEDNN_OPTS": "0", "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2"},
        "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "XLA_FLAGS": "--xla_cpu_max_isa=AVX2"},
        "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    },
}  # fmt: skip
COMPARES = re.compile(r"assert_parity|assert_rounds_alike|allclose|parity_|close_to")
EQUAL = re.compile(r"array_equal|\bsame\(")  # one program on one processor: the same bits
# oneDNN for AVX2 ends TensorFlow's process at any product in bfloat16, as plain tf.matmul does.
BREAKS = {"AVX2": "not (mixed or half or bfloat16)"}


def comparing(equal):
    """The tests that compare what a backend has computed, those of equal bits too if `equal`."""
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        source = path.read_text()
        if "pytestmark = pytest.mark.once" in source:
            continue
        for node in ast.parse(source).body:
            is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            text = ast.get_source_segment(source, node)
            if is_test and (COMPARES.search(text) or (equal and EQUAL.search(text))):
                yield f"{path.relative_to(ROOT)}::{node.name}"


def run(backend, name, variables, threads, args):
    """(passed, failed, skipped) and the lines that name what failed."""
    words = " and ".join(
        filter(None, [args.words, BREAKS.get(name) if backend == "tensorflow" else ""])
    )
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not once", "--in-turn"]
    command += comparing(args.equal)
    found = subprocess.run(
        [*command, *(["-k", words] if words else [])], cwd=ROOT, text=True, capture_output=True,
        env={**os.environ, **variables, "KERAS_BACKEND": backend, "OMP_NUM_THREADS": str(threads)},
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads]),
    )  # fmt: skip
    last = (found.stdout.strip() or "nothing").splitlines()[-1]
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (\w+)", last)}
    failures = re.findall(r"^(?:FAILED|ERROR) .*$", found.stdout, re.M)
    if found.returncode not in (0, 1):
        failures.append(f"exit status {found.returncode}: {last} {found.stderr[-500:]}")
    failed = max(counts.get("failed", 0) + counts.get("error", 0), len(failures))
    return counts.get("passed", 0), failed, counts.get("skipped", 0), failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("-k", dest="words", help="only tests of these names, as pytest takes them")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--equal", action="store_true", help="also tests of equal bits")
    args = parser.parse_args()
    print("| backend | instruction set | threads | passed | failed | skipped |")
    print("|---|---|---|---|---|---|")
    for backend in args.backends:
        for name, variables in SETTINGS[backend].items():
            for threads in args.threads:
                passed, failed, skipped, lines = run(backend, name, variables, threads, args)
                print(f"| {backend} | {name} | {threads} | {passed} | {failed} | {skipped} |")
                print("\n".join(lines), end="\n" * bool(lines), flush=True)


if __name__ == "__main__":
    main()
