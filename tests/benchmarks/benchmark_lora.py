"""Times a training step with LoRA beside transformers with PEFT, and beside Keras's enable_lora.

Command: python tests/benchmarks/benchmark_lora.py [--backends jax torch tensorflow] [--rounds 7]
[--work query/value] (`--tiny` is a smoke run; `--core 0` pins the work to that core and counts CPU
time). It prints the tables of docs/benchmarks.md.

Method: as benchmark_esm2.py; one process per backend holds all sides, which take turns. Rank 8,
alpha 16, on query and value or on all six dense layers of a block, frozen otherwise; a linear head
learns with it. kft loads the adapter that PEFT has drawn and saved, so that the losses must agree.
"enable_lora" is Keras's own, on the same backbone and layers; it draws its own A.

Memory: one process per side on torch; the peak of the resident size over training steps, less the
resident size after loading.
"""

import argparse
import json
import os
import statistics
import tempfile
import warnings

import benchmark_esm2 as base
import numpy as np

WORK = {  # PEFT's targets, and Keras's and kft's
    "query/value": (["query", "value"], ["query", "value"]),
    "all dense": (
        [r"query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
        ["query", "key", "value", "attention_output", "feedforward_in", "feedforward_out"],
    ),
}
RANK, ALPHA = 8, 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=base.BACKENDS, default=base.BACKENDS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", nargs="+", choices=WORK, default=list(WORK), help="LoRA on")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--core", type=base.pinned, help="pin to this core and count CPU time")
    parser.add_argument("--inside", choices=base.BACKENDS, help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(memory(*options.memory) if options.memory else measure(options)))
        return
    for backend in options.backends:
        print(f"\n{backend}, milliseconds\n")
        print("| batch | LoRA on | kft | PEFT | ratio | enable_lora | ratio | loss differs by |")
        print("|---|---|---|---|---|---|---|---|")
        for row in base.inside(backend):
            print(
                f"| {row['batch']} | {row['work']} | {row['kft']:.0f} | {row['peft']:.0f} | "
                f"**{row['kft'] / row['peft']:.2f}** | {row['keras']:.0f} | "
                f"{row['kft'] / row['keras']:.2f} | {row['difference']:.0e} |"
            )
    if "torch" in options.backends:
        print("\n| batch | LoRA on | kft, MiB | PEFT, MiB | ratio |\n|---|---|---|---|---|")
        for work in options.work:
            for batch, length in base.BATCHES[options.tiny]:
                case = ["--memory", work, str(batch), str(length)]
                ours, theirs = (base.inside("torch", *case, side) for side in ("kft", "peft"))
                print(f"| B{batch} L{length} | {work} | {ours:.0f} | {theirs:.0f} | "
                      f"**{ours / theirs:.2f}** |")  # fmt: skip


def measure(options):
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    rng, rows = np.random.default_rng(0), []
    language_model = base.reference(*base.SIZES[options.tiny])
    for work in options.work:
        for batch, length in base.BATCHES[options.tiny]:
            peer = Theirs(language_model, work)
            sides = {"peft": peer, "kft": Ours(language_model, work, peer.adapted),
                     "keras": Own(language_model, work)}  # fmt: skip
            token_ids, classes = data(rng, batch, length)
            seconds, losses = {name: [] for name in sides}, {name: [] for name in sides}
            for _ in range(options.rounds + 2):  # the first compiles, the second warms up
                for name, side in sides.items():
                    start = base.now()
                    losses[name].append(side.step(token_ids, classes))
                    seconds[name].append(base.now() - start)
            row = {name: 1e3 * statistics.median(taken[2:]) for name, taken in seconds.items()}
            difference = abs(np.mean(losses["kft"]) - np.mean(losses["peft"]))
            rows.append({"batch": f"B{batch} L{length}", "work": work, "difference": difference,
                         **row})  # fmt: skip
    return rows


def data(rng, batch, length):
    from kft.backbones.esm2.model import encode

    token_ids = encode(base.proteins(rng, [length - 2] * batch))["token_ids"]
    return token_ids, rng.integers(0, 2, batch).astype("int32")


def memory(work, batch, length, side):
    """MiB by which training steps raise the resident size above that after loading."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    language_model = base.reference(*base.SIZES[False])
    model = (Ours if side == "kft" else Theirs)(language_model, work)
    del language_model
    token_ids, classes = data(np.random.default_rng(0), int(batch), int(length))
    resident = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here
    for _ in range(5):
        model.step(token_ids, classes)
    return status("VmHWM") - resident


def status(name):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(name))
    return int(line.split()[1]) / 1024


class Ours(base.Ours):
    def __init__(self, language_model, work, adapted=None):
        import kft

        self.work = work
        self.model = kft.Model(base.converted(language_model), kft.heads.Classification(2))
        if adapted is None:
            kft.add_lora(self.model, RANK, ALPHA, targets=WORK[work][1])
        else:
            with tempfile.TemporaryDirectory() as folder:
                adapted.save_pretrained(folder)
                kft.load_adapter(self.model, folder)
        self.compile()

    def compile(self):
        self.model.compile(base.adamw(), "sparse_categorical_crossentropy", metrics=[])


class Own(Ours):
    """Keras's own LoRA."""

    def __init__(self, language_model, work):
        import kft

        self.work = work
        self.model = kft.Model(base.converted(language_model), kft.heads.Classification(2))
        kft.train_only(self.model, ["head", *WORK[work][1]])
        for block in self.model.backbone.stages[1:-1]:
            for name in WORK[work][1]:
                layer = getattr(block, name)
                layer.enable_lora(RANK, lora_alpha=ALPHA)
                layer.bias.trainable = False
        self.compile()


class Theirs(base.Theirs):
    def __init__(self, language_model, work):
        import copy

        import peft
        import torch

        warnings.filterwarnings("ignore", category=FutureWarning)
        self.work = work
        config = peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=WORK[work][0],
            exclude_modules=r".*(contact_head|pooler).*",
        )  # fmt: skip
        self.adapted = peft.get_peft_model(copy.deepcopy(language_model.esm), config).train()
        self.esm = self.adapted
        self.head = torch.nn.Linear(language_model.config.hidden_size, 2)
        for parameter in self.head.parameters():
            torch.nn.init.zeros_(parameter)
        learning = [p for p in self.esm.parameters() if p.requires_grad]
        self.adam = torch.optim.AdamW([*learning, *self.head.parameters()], **base.ADAM)


if __name__ == "__main__":
    main()
