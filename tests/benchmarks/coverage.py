"""How often intervals hold the truth, and how often the paired test errs, in simulated data sets.

Command: python tests/benchmarks/coverage.py --sets 300
The table of docs/choosing-a-strategy.md is what it prints. "Textbook" is the nested bootstrap that
draws the seeds with replacement; the last column asks how often any of five methods that are all
equally good is called worse than the best.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from simulated import WORLDS, coverage, rejections, textbook_coverage


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=int, default=300, help="data sets of each kind")
    sets = parser.parse_args().sets
    print("| data sets | 90% interval | textbook | test at 5% | any of five, corrected |")
    print("|---|---|---|---|---|")
    for name, world in WORLDS.items():
        ours, theirs = coverage(world, sets), textbook_coverage(world, sets)
        named, some = rejections(world, methods=5, sets=sets)
        print(f"| {name} | {ours:.1%} | {theirs:.1%} | {named:.1%} | {some:.1%} |", flush=True)


if __name__ == "__main__":
    main()
