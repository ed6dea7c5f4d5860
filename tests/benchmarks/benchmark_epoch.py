"""Times one epoch of LoRA on natural proteins beside the Trainer of transformers with PEFT.

Command: KFT_DATA=... python tests/benchmarks/benchmark_epoch.py [--backends jax torch tensorflow]
[--proteins 500] (`--tiny` is a smoke run on proteins that it draws; `--core 0` pins the work to
that core and counts CPU time). It prints the table of docs/benchmarks.md.

Method: one process per backend holds all sides, one after the other. The proteins are drawn from
`protein_corpus` and cut at 1,022 residues, with classes by chance. Both sides have the shape of
esm2_t6_8M_UR50D, rank 8 on query and value, a linear head on the mean over residues, batches of 8
and AdamW with gradients cut to norm 1. kft goes its users' way, `kft.fit`: "first" compiles,
"again" is the same call once more. The Trainer pads each batch to its longest protein; its batches
are drawn at random, or by "group_by_length" from proteins of similar length.
"""

import copy
import gzip
import json
import os
import tempfile
import warnings
from pathlib import Path

import benchmark_esm2 as base
import benchmark_lora as lora
import numpy as np

BATCH, MOST = 8, 1022


def main():
    parser = base.arguments(__doc__, rounds=1)
    parser.add_argument("--proteins", type=int, default=500)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    print("| backend | kft, first | again | Trainer | ratio | group_by_length | ratio |")
    print("|---|---|---|---|---|---|---|")
    for backend in options.backends:
        first, again, trainer, grouped = base.inside(backend)
        print(
            f"| {backend} | {first:.0f} s | {again:.0f} s | {trainer:.0f} s | "
            f"**{again / trainer:.2f}** | {grouped:.0f} s | **{again / grouped:.2f}** |"
        )


def measure(options):
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    proteins = (
        base.proteins(rng, rng.integers(5, 30, 20)) if options.tiny else corpus(options.proteins)
    )
    classes = rng.integers(0, 2, len(proteins)).astype("int32")
    language_model = base.reference(*base.SIZES[options.tiny])
    sides = [ours(language_model, proteins, classes)] * 2
    sides += [
        theirs(language_model, proteins, classes, way) for way in ("random", "group_by_length")
    ]
    seconds = []
    for epoch in sides:
        start = base.now()
        epoch()
        seconds.append(base.now() - start)
    return seconds


def corpus(count):
    """Natural proteins, drawn from the corpus."""
    path = Path(os.environ["KFT_DATA"]) / "protein_corpus" / "train_00.tsv.gz"
    with gzip.open(path, "rt") as file:
        header = next(file).rstrip("\n").split("\t")
        rows = [line.rstrip("\n").split("\t")[header.index("sequence")] for line in file]
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    return [rows[i][:MOST] for i in chosen]


def ours(language_model, proteins, classes):
    import kft

    model = kft.Model(base.converted(language_model), kft.heads.Classification(2))
    kft.add_lora(model, lora.RANK, lora.ALPHA, targets=["query", "value"])
    return lambda: kft.fit(model, (proteins, classes), epochs=1, batch_size=BATCH, verbose=0)


def theirs(language_model, proteins, classes, sampling):
    import peft
    import torch
    import transformers

    from kft.backbones.esm2.model import encode

    warnings.filterwarnings("ignore", category=FutureWarning)
    config = peft.LoraConfig(
        r=lora.RANK, lora_alpha=lora.ALPHA, target_modules=["query", "value"],
        exclude_modules=r".*(contact_head|pooler).*",
    )  # fmt: skip
    adapted = peft.get_peft_model(copy.deepcopy(language_model.esm), config)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.esm = adapted
            self.head = torch.nn.Linear(language_model.config.hidden_size, 2)

        def forward(self, input_ids, attention_mask, labels):
            hidden = self.esm(input_ids, attention_mask=attention_mask).last_hidden_state
            logits = self.head(base.mean_over_residues(hidden, input_ids))
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    def padded(records):
        rows = [torch.tensor(record["input_ids"]).long() for record in records]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
        labels = torch.tensor([record["labels"] for record in records])
        return {"input_ids": ids, "attention_mask": (ids != 1).long(), "labels": labels}

    records = [
        {"input_ids": encode([protein])["token_ids"][0], "labels": int(label)}
        for protein, label in zip(proteins, classes, strict=True)
    ]

    def epoch():
        with tempfile.TemporaryDirectory() as folder:
            settings = transformers.TrainingArguments(
                folder, num_train_epochs=1, per_device_train_batch_size=BATCH, use_cpu=True,
                train_sampling_strategy=sampling, remove_unused_columns=False, report_to=[],
                save_strategy="no", logging_strategy="no", disable_tqdm=True,
            )  # fmt: skip
            transformers.Trainer(
                Classifier(), settings, data_collator=padded, train_dataset=records
            ).train()

    return epoch


if __name__ == "__main__":
    main()
