"""Times a scan of all single mutants of a protein beside transformers, and its memory.

Command: python tests/benchmarks/benchmark_mutations.py [--backends torch jax tensorflow]
(`--tiny` is a smoke run; `--core 0` pins the work to that core and counts CPU time). It prints the
tables of docs/zero_shot.md.

Method: as benchmark_esm2.py; one process per backend holds all sides, which take turns. Each hides
one residue after the other of a random protein and scores its 19 replacements: `kft.scan`; a loop
over transformers with one position per pass, as published scripts do; and the same in batches of
32 positions. Random weights of scale 0.1, so that the scores must agree.

Memory: growth of the peak resident size of `kft.score_mutations` by mutant marginal, which takes a
pass for each mutant, with 4,000 and with 16,000 mutants, each in a process of its own; of a small
model, since memory that grows with the mutants does not depend on it.
"""

import json
import os
import resource
import statistics

import benchmark_esm2 as base
import numpy as np

RESIDUES = "LAGVSERTIDPKQNFYMHWC"


def main():
    parser = base.arguments(__doc__, rounds=3)
    parser.add_argument("--length", type=int, default=263, help="residues of the protein")
    parser.add_argument("--mutants", type=int, help="inside: measure the memory")
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(memory(options) if options.mutants else measure(options)))
        return
    print(
        "| backend | kft.scan, s | one position per pass, s | ratio | batches, s | ratio | scores |"
    )
    print("|---|---|---|---|---|---|---|")
    for backend in options.backends:
        row = base.inside(backend)
        print(
            f"| {backend} | {row['kft']:.1f} | {row['loop']:.1f} | "
            f"**{row['kft'] / row['loop']:.2f}** | {row['batches']:.1f} | "
            f"**{row['kft'] / row['batches']:.2f}** | differ by {row['difference']:.0e} |"
        )
    print("\n| mutants | memory, MiB |\n|---|---|")
    for count in (100, 400) if options.tiny else (4000, 16000):
        print(f"| {count:,} | {base.inside(options.backends[0], '--mutants', str(count)):.0f} |")


def reference(tiny):
    """transformers' ESM-2 of 8 million weights, or a small one, with weights that matter."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model = base.reference(*base.SIZES[tiny])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1)
    return model


def measure(options):
    import kft

    model = reference(options.tiny)
    backbone = base.converted(model)
    (protein,) = base.proteins(np.random.default_rng(0), [24 if options.tiny else options.length])
    sides = {
        "kft": lambda: kft.scan(backbone, protein).score.to_numpy(),
        "loop": lambda: theirs(model, protein, 1),
        "batches": lambda: theirs(model, protein, 32),
    }
    seconds, scores = {name: [] for name in sides}, {}
    for _ in range(options.rounds + 1):  # the first compiles
        for name, side in sides.items():
            start = base.now()
            scores[name] = side()
            seconds[name].append(base.now() - start)
    row = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    return row | {"difference": float(np.abs(scores["kft"] - scores["loop"]).max())}


def theirs(model, protein, batch):
    """The scores of all single mutants, in the order of `kft.scan`."""
    import torch

    from kft.backbones.esm2 import encode
    from kft.backbones.residue_tokens import ALPHABET, MASK

    row = torch.tensor(encode([protein])["token_ids"][0]).long()
    columns = [ALPHABET.index(x) for x in RESIDUES]
    scores = []
    with torch.no_grad():
        for start in range(0, len(protein), batch):
            at = torch.arange(start, min(start + batch, len(protein)))
            shown = row.repeat(len(at), 1)
            shown[torch.arange(len(at)), at + 1] = MASK
            logits = model(shown, attention_mask=torch.ones_like(shown)).logits
            log = logits[torch.arange(len(at)), at + 1].log_softmax(-1)
            gains = log[:, columns] - log[torch.arange(len(at)), row[at + 1]][:, None]
            scores += [
                float(gain)
                for i, residue_gains in zip(at.tolist(), gains, strict=True)
                for gain, residue in zip(residue_gains, RESIDUES, strict=True)
                if residue != protein[i]
            ]
    return np.array(scores)


def memory(options):
    import kft

    backbone = base.converted(reference(tiny=True))
    rng = np.random.default_rng(0)
    (protein,) = base.proteins(rng, [24 if options.tiny else 100])
    every = [f"{x}{i}{y}" for i, x in enumerate(protein, 1) for y in RESIDUES if x != y]
    pairs = [f"{x}:{y}" for x in every[:200] for y in every[-200:]]
    mutants = rng.choice(pairs, options.mutants, replace=False)
    kft.score_mutations(backbone, protein, mutants[:300], "mutant_marginal")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kft.score_mutations(backbone, protein, mutants, "mutant_marginal")
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    main()
