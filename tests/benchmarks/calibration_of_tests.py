"""How often what `kft.evaluate` states is wrong, in simulated sets: coverage, levels and power.

Command: python tests/benchmarks/calibration_of_tests.py --sets 2000
Needs: 3 minutes of one core. The tables of docs/judging.md are what it prints.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import judged


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", type=int, default=2000, help="simulated sets of each kind")
    sets = parser.parse_args().sets
    print("| 90% interval of | holds the truth |\n|---|---|")
    for name, share in judged.coverage_of_means(sets).items():
        print(f"| {name} | {share:.1%} |")
    print("\n| conformal, 90% | thresholds | all | group 0 | group 1, noisier |")
    print("|---|---|---|---|---|")
    covered = judged.conformal_coverage(sets)
    for task, by in dict.fromkeys(key[:2] for key in covered):
        shares = [covered[task, by, part] for part in ("all", "group 0", "group 1")]
        print(f"| {task} | {by} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    print("\n| test at 5% | without an effect | with one |\n|---|---|---|", flush=True)
    for name, level, effect in (
        ("groups differ", judged.level_of_audit, {"effect": 1.0}),
        ("groups differ, clusters of 3", lambda n, **o: judged.level_of_audit(n, 3, **o),
         {"effect": 1.0}),
        ("groups differ, records with weights",
         lambda n, **o: judged.level_of_audit(n, weighted=True, **o), {"effect": 1.0}),
        ("fine-tune, AUROC", judged.level_of_transfer, {"shift": 2.0}),
        ("fine-tune, AUROC, clusters of 2",
         lambda n, **o: judged.level_of_transfer(n, cluster=2, **o), {"shift": 2.0}),
        ("fine-tune, Spearman", lambda n, **o: judged.level_of_transfer(n, "regression", **o),
         {"shift": 2.0}),
        ("badly calibrated", judged.level_of_calibration, {"sharpness": 2.0}),
        ("badly calibrated, records with weights",
         lambda n, **o: judged.level_of_calibration(n, weighted=True, **o), {"sharpness": 2.0}),
    ):  # fmt: skip
        print(f"| {name} | {level(sets):.1%} | {level(sets, **effect):.1%} |", flush=True)
    alike, better = (judged.levels_of_cross_validation(sets, effect=e) for e in (0.0, 1.0))
    for i, name in enumerate(("corrected", "naive")):
        print(f"| 10 x 5 folds, {name} t test | {alike[i]:.1%} | {better[i]:.1%} |")
    print("\n| trained on | groups found to differ, of 20 seeds |\n|---|---|")
    for name, counts in (("biased", judged.BIASED), ("balanced", judged.BALANCED)):
        caught = sum(judged.faces(counts, seed).differs for seed in range(20))
        print(f"| {name}: {', '.join(map(str, counts))} persons | {caught} |")


if __name__ == "__main__":
    main()
