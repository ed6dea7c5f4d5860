"""Times a step of masked language modelling on each backend beside transformers on torch.

Command: python tests/benchmarks/benchmark_pretraining.py [--backends jax torch] [--rounds 7]
(`--tiny` is a smoke run; `--core 0` pins the work to that core and counts CPU time, for a machine
that others use.) It prints the table of docs/benchmarks.md.

One process per backend holds both sides, which take turns on the same batches from the same
weights, so that whatever else the machine does meets both; given are medians. kft goes its users'
way, `train_on_batch` of a compiled `backbone.masked_lm`; the peer is `EsmForMaskedLM` in a plain
torch loop with AdamW of the same numbers. Their mean losses must agree.

"peak" is what torch's largest matrix product reaches in the same process and precision, float32; a
step of N parameters counts as 6 N operations per token (Kaplan et al. 2020, section 2.1).
"""

import json
import os
import statistics

import numpy as np
from benchmark_esm2 import (
    arguments,
    converted,
    inside,
    machine,
    measure_step,
    now,
    proteins,
    reference,
)

SIZE = {False: (4, 256, 4), True: (1, 32, 2)}  # blocks, width, heads, by --tiny
BATCHES = {False: [(8192, 128), (8192, 256), (8192, 512)], True: [(128, 32)]}  # tokens, crop
ADAM = {"learning_rate": 1e-4, "beta_1": 0.9, "beta_2": 0.98, "epsilon": 1e-8}


def main():
    options = arguments(__doc__, rounds=7).parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print(machine())
    print("| backend | tokens, crop | kft, residues/s | share of peak | transformers | kft's time "
          "to theirs | loss differs by |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for backend in options.backends:
        for row in inside(backend):
            print(f"| {backend} | {row['batch']} | {row['residues'] / row['kft'] * 1e3:,.0f} | "
                  f"{row['share']:.0%} | {row['residues'] / row['peer'] * 1e3:,.0f} | "
                  f"**{row['kft'] / row['peer']:.2f}** | {row['loss_difference']:.0e} |",
                  flush=True)  # fmt: skip


def measure(options):
    import torch

    from kft.training.pretraining import masked_batches

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    language_model = reference(*SIZE[options.tiny])
    fastest = peak(options.rounds)
    rows = []
    for tokens, crop in BATCHES[options.tiny]:
        ours, theirs = Ours(language_model), Theirs(language_model)
        batches = masked_batches(
            proteins(rng, [crop - 2] * (tokens // crop)), ours.backbone.encode, tokens, crop
        )
        inputs, targets, weights = batches[0]
        row = {"batch": f"{tokens}, {crop}", "residues": (crop - 2) * (tokens // crop)}
        row |= measure_step(
            lambda ids, target, ours=ours, weights=weights: ours.step(ids, target, weights),
            lambda ids, target, theirs=theirs, weights=weights: theirs.step(ids, target, weights),
            inputs["token_ids"], targets, options.rounds,
        )  # fmt: skip
        parameters = ours.backbone.masked_lm.count_params()
        row["share"] = 6 * parameters * tokens / (row["kft"] / 1e3) / fastest
        rows.append(row)
    return rows


def peak(rounds, size=2048):
    """Operations per second of a large product of matrices."""
    import torch

    one, other = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(rounds + 1):
        start = now()
        one @ other
        seconds.append(now() - start)
    return 2 * size**3 / statistics.median(seconds[1:])


class Ours:
    def __init__(self, language_model):
        import keras

        from kft.training.pretraining import MaskedCrossEntropy

        self.backbone = converted(language_model)
        self.backbone.masked_lm.compile(
            keras.optimizers.AdamW(weight_decay=0.01, **ADAM), MaskedCrossEntropy()
        )

    def step(self, token_ids, targets, weights):
        model = self.backbone.masked_lm
        return float(model.train_on_batch({"token_ids": token_ids}, targets, weights))


class Theirs:
    def __init__(self, language_model):
        import copy

        import torch

        self.model = copy.deepcopy(language_model).train()
        self.adam = torch.optim.AdamW(
            self.model.parameters(), lr=ADAM["learning_rate"], eps=ADAM["epsilon"],
            betas=(ADAM["beta_1"], ADAM["beta_2"]), weight_decay=0.01,
        )  # fmt: skip

    def step(self, token_ids, targets, weights):
        import torch

        ids = torch.tensor(token_ids).long()
        labels = torch.tensor(np.where(weights > 0, targets[..., 0], -100)).long()
        self.adam.zero_grad()
        loss = self.model(ids, attention_mask=(ids != 1).long(), labels=labels).loss
        loss.backward()
        self.adam.step()
        return float(loss.detach())


if __name__ == "__main__":
    main()
