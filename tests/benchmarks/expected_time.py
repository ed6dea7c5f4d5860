"""Expected and real time of trainings: how good is what `kft.compare` announces?

    KERAS_BACKEND=torch python tests/benchmarks/expected_time.py --data amp --records 400 --epochs 3

Prints, for each strategy, the time that `kft.compare` expects before it trains, the time that the
training and the prediction of the test split took, and their ratio.
"""

import argparse
import time
from dataclasses import replace

import kft
from kft.comparison import expecting, runs
from kft.programs import kept_programs

STRATEGIES = [
    "linear_probe",
    "head_only",
    "last_blocks",
    "lora",
    "full",
    "from_scratch",
]


def main() -> None:
    """Measure, and print a line for each strategy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="amp")
    parser.add_argument("--backbone", default="kft_esm2_tiny")
    parser.add_argument("--records", type=int, default=400, help="in training; fewer elsewhere")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-length", type=int, default=None)
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES)
    parser.add_argument(
        "--processor-time", action="store_true", help="which other programs do not disturb"
    )
    args = parser.parse_args()
    if args.processor_time:
        time.perf_counter = time.process_time
    backbone, data = kft.load(args.backbone), kft.data.load(args.data)
    counts = {"train": args.records, "valid": args.records // 4, "test": args.records // 4}
    splits = data.splits.items()
    data = replace(data, **{k: part.take(range(min(counts[k], len(part)))) for k, part in splits})
    options = {"batch_size": 32, "seed": 0}
    head = kft.heads.for_data
    step = expecting.measured_step(backbone, head(data), data, 32, args.max_length)
    print(f"{args.data}, {len(data.train)} records: a step takes {step.seconds:.3f} s")
    total = [0.0, 0.0]
    for name in args.strategies:
        strategy = kft.strategies.get(name)
        if hasattr(strategy, "epochs"):
            strategy = replace(strategy, epochs=args.epochs)
        expected = expecting.expected_of(strategy, step, backbone, head(data)).of(1)
        started = time.perf_counter()
        runs.train(backbone, head(data), data, strategy, options, args.max_length, [])
        real = time.perf_counter() - started
        total = [total[0] + expected, total[1] + real]
        _print(name, expected, real)
    _print("all", *total)


def _print(name: str, expected: float, real: float) -> None:
    print(f"{name:18} expected {expected:7.1f} s, real {real:7.1f} s, {expected / real:.2f}")


if __name__ == "__main__":
    with kept_programs():  # as `kft.compare` does
        main()
