"""Times kft's ESM-2 on each backend beside transformers on torch: one run, same weights, same work.

Command: python tests/benchmarks/benchmark_esm2.py [--backends jax torch tensorflow] [--rounds 7]
(`--tiny` is a smoke run; `--core 0`, for a machine that others use, pins the work to that core and
counts CPU time). It prints the tables of docs/benchmarks.md and writes out/benchmark_esm2.json.

Steps: one process per backend holds both sides, which take turns, so that whatever else the
machine does meets both; given are medians. Both sides have the shape of esm2_t6_8M_UR50D, the same
random weights, mean pooling, a zero linear head, cross-entropy and AdamW with the same numbers. kft
goes its users' way, `predict_on_batch` and `train_on_batch` of a compiled `kft.Model`; the peer is
a plain torch loop. "query/value" trains the blocks' query and value projections and the head; the
peer does the same with `requires_grad`, without an adapter, since PEFT's LoRA trains other weights.
"matmul" is the time of the products with kernels alone, by torch: a floor for the step. Both sides
start every row from the same weights and take the same steps, so their mean losses must agree.

Embedding: `kft.embed` on proteins of log-normal length beside the usual loop, batches in the order
given and padded to their longest, and beside the same loop over proteins sorted by length.
"""

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
BACKENDS = ("torch", "jax", "tensorflow")
SIZES = {False: (6, 320, 20), True: (2, 32, 4)}  # blocks, width, heads, by --tiny
BATCHES = {False: [(8, 58), (32, 58), (8, 256)], True: [(2, 10)]}
ADAM = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-7, "weight_decay": 0.01}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--proteins", type=int, default=500, help="how many to embed")
    parser.add_argument("--embedding", action="store_true", help="only embed")
    parser.add_argument("--core", type=pinned, help="pin to this core and count CPU time")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmark_esm2.json")
    parser.add_argument("--inside", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(measure(options)))
        return
    results = {}
    for backend in options.backends:
        results[backend] = inside(backend)
        print_tables(backend, results[backend])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine(), **results}, indent=1))
    print(f"\n{machine()}\nwritten: {options.out}")


def adamw():
    """The optimizer of `kft.fit` with the numbers of the peer's."""
    from kft.training.optimizers import AdamW

    beta_1, beta_2 = ADAM["betas"]
    return AdamW(ADAM["lr"], ADAM["weight_decay"], beta_1, beta_2, ADAM["eps"])


def pinned(core):
    """Pin this process to a core, before a backend counts them."""
    os.sched_setaffinity(0, [int(core)])
    return int(core)


def arguments(doc, rounds):
    """A parser with what the benchmarks of a training step take."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--core", type=pinned, help="pin to this core and count CPU time")
    parser.add_argument("--inside", choices=BACKENDS, help=argparse.SUPPRESS)
    return parser


def inside(backend, *more):
    """What this script prints last as JSON when it runs on a backend, in a process of its own."""
    command = [sys.executable, *sys.argv, "--inside", backend, *more]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def machine():
    packages = ("keras", "torch", "jax", "tensorflow", "transformers", "numpy")
    return {"cores": os.cpu_count(), "python": platform.python_version()} | {
        name: version(name) for name in packages
    }


def print_tables(backend, result):
    print(f"\n{backend}, milliseconds\n")
    print(
        "| batch | work | kft | transformers | ratio | matmul | first call, s | loss differs by |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in result["steps"]:
        print(
            f"| {row['batch']} | {row['work']} | {row['kft']:.0f} | {row['peer']:.0f} | "
            f"**{row['kft'] / row['peer']:.2f}** | {row['matmul']:.0f} | {row['first_call']:.1f} | "
            f"{row['loss_difference']:.0e} |"
        )
    embedding = result["embedding"]
    print("\n| embedding | seconds | times kft.embed |\n|---|---|---|")
    for name, seconds in embedding["seconds"].items():
        print(f"| {name} | {seconds:.1f} | {seconds / embedding['seconds']['kft.embed']:.2f} |")
    print(f"\nembeddings differ by {embedding['difference']:.0e} at most")


# Inside one backend's process -----------------------------------------------------------------


def measure(options):
    import keras
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    if keras.backend.backend() != options.inside:
        raise RuntimeError(f"expected {options.inside}, found {keras.backend.backend()}.")
    rng = np.random.default_rng(0)
    sizes = SIZES[options.tiny]
    language_model = reference(*sizes)
    steps = []
    for work in () if options.embedding else ("forward", "full", "query/value"):
        for batch, length in BATCHES[options.tiny]:
            ours, theirs = Ours(language_model, work), Theirs(language_model, work)
            token_ids = ours.model.encode(proteins(rng, [length - 2] * batch))["token_ids"]
            classes = rng.integers(0, 2, batch).astype("int32")
            row = {"batch": f"B{batch} L{length}", "work": work}
            row |= measure_step(ours.step, theirs.step, token_ids, classes, options.rounds)
            row["matmul"] = matmuls(*sizes[:2], batch * length, work, options.rounds)
            steps.append(row)
    count = 12 if options.tiny else options.proteins
    lengths = np.clip(rng.lognormal(np.log(250), 0.6, count), 30, 1000).astype(int)
    embedding = measure_embedding(language_model, proteins(rng, lengths))
    return {"steps": steps, "embedding": embedding}


def now():
    """Seconds; on one core only those that this process had, so that other work does not count."""
    return time.process_time() if len(os.sched_getaffinity(0)) == 1 else time.perf_counter()


def proteins(rng, lengths):
    return ["".join(rng.choice(list("LAGVSERTIDPKQNFYMHWC"), n)) for n in lengths]


def reference(num_blocks, width, num_heads):
    from transformers import EsmConfig, EsmForMaskedLM

    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=width,
        num_hidden_layers=num_blocks, num_attention_heads=num_heads, intermediate_size=4 * width,
        position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
        layer_norm_eps=1e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return EsmForMaskedLM(config).eval()


def converted(language_model):
    """kft's backbone with a copy of the weights."""
    from kft.backbones.esm2.weights import from_hugging_face

    tensors = {name: t.numpy().copy() for name, t in language_model.state_dict().items()}
    return from_hugging_face(language_model.config.to_dict(), tensors, "benchmark")


class Ours:
    def __init__(self, language_model, work):

        import kft

        backbone = converted(language_model)
        if work == "query/value":
            for layer in backbone.layers:
                layer.trainable = False
            for block in backbone.stages[1:-1]:
                block.trainable = True  # wakes all its layers
                for name, layer in self.parts(block):
                    layer.trainable = name in ("query", "value")
        self.model, self.work = kft.Model(backbone, kft.heads.Classification(2)), work
        self.model.compile(adamw(), "sparse_categorical_crossentropy", metrics=[])

    @staticmethod
    def parts(block):
        names = ("attention_norm", "query", "key", "value", "attention_output",
                 "feedforward_norm", "feedforward_in", "feedforward_out")  # fmt: skip
        return [(name, getattr(block, name)) for name in names]

    def step(self, token_ids, classes):
        """One step, its loss; for "forward" the mean of the answers."""
        if self.work == "forward":
            return float(self.model.predict_on_batch({"token_ids": token_ids}).mean(axis=0)[0])
        return float(np.ravel(self.model.train_on_batch({"token_ids": token_ids}, classes))[0])


class Theirs:
    def __init__(self, language_model, work):
        import torch

        self.esm, self.work = copy.deepcopy(language_model.esm).train(), work
        self.head = torch.nn.Linear(language_model.config.hidden_size, 2)
        for parameter in self.head.parameters():
            torch.nn.init.zeros_(parameter)
        if work == "query/value":
            for name, parameter in self.esm.named_parameters():
                parameter.requires_grad_(".query." in name or ".value." in name)
        learning = [p for p in self.esm.parameters() if p.requires_grad]
        self.adam = torch.optim.AdamW([*learning, *self.head.parameters()], **ADAM)

    def logits(self, token_ids):
        import torch

        token_ids = torch.tensor(token_ids).long()
        hidden = self.esm(token_ids, attention_mask=(token_ids != 1).long()).last_hidden_state
        return self.head(mean_over_residues(hidden, token_ids))

    def step(self, token_ids, classes):
        import torch

        if self.work == "forward":
            with torch.no_grad():
                return float(self.logits(token_ids).softmax(-1).mean(dim=0)[0])
        self.adam.zero_grad()
        classes = torch.tensor(classes).long()
        loss = torch.nn.functional.cross_entropy(self.logits(token_ids), classes)
        loss.backward()
        self.adam.step()
        return float(loss.detach())


def mean_over_residues(hidden, token_ids):
    residue = (token_ids > 2).float()  # <cls>, <pad> and <eos> are 0, 1 and 2
    return (hidden * residue[..., None]).sum(dim=1) / residue.sum(dim=1, keepdim=True)


def measure_step(ours, theirs, token_ids, classes, rounds):
    """Medians in milliseconds; both sides take the same steps, so their losses must agree."""
    seconds, losses = {ours: [], theirs: []}, {ours: [], theirs: []}
    for _ in range(rounds + 2):  # the first compiles, the second warms up
        for step in (ours, theirs):
            start = now()
            losses[step].append(step(token_ids, classes))
            seconds[step].append(now() - start)
    kft, peer = (1e3 * statistics.median(seconds[step][2:]) for step in (ours, theirs))
    difference = abs(np.mean(losses[ours]) - np.mean(losses[theirs]))
    return {
        "kft": kft, "peer": peer, "first_call": seconds[ours][0], "loss_difference": difference,
    }  # fmt: skip


def matmuls(num_blocks, width, tokens, work, rounds):
    """Milliseconds of a step's products with kernels, forward and both gradients, in torch."""
    import torch

    # Query, value, key, attention output; feed-forward in and out.
    kernels = [(width, width)] * 4 + [(width, 4 * width), (4 * width, width)]
    operands = [
        (torch.randn(tokens, i), torch.randn(i, o), torch.randn(tokens, o)) for i, o in kernels
    ]
    seconds = []
    for _ in range(rounds + 1):
        start = now()
        for at, (x, kernel, gradient) in enumerate(operands * num_blocks):
            x @ kernel
            if work != "forward":
                gradient @ kernel.T
            if work == "full" or (work == "query/value" and at % len(kernels) < 2):
                x.T @ gradient
        seconds.append(now() - start)
    return 1e3 * statistics.median(seconds[1:])


def measure_embedding(language_model, sequences):
    import kft

    backbone, theirs = converted(language_model), Theirs(language_model, "forward")
    ways = {
        "kft.embed, first call": lambda: kft.embed(backbone, sequences, batch_size=32),
        "kft.embed": lambda: kft.embed(backbone, sequences, batch_size=32),
    }
    for order in ("in the order given", "sorted by length"):
        ways[f"loop, {order}"] = partial(loop, theirs.esm, sequences, 32, "sorted" in order)
    seconds, found = {}, {}
    for name, embed in ways.items():
        start = now()
        found[name] = embed()
        seconds[name] = now() - start
    vectors = list(found.values())
    difference = max(float(np.abs(v - vectors[-1]).max()) for v in vectors)
    return {"seconds": seconds, "difference": difference, "proteins": len(sequences)}


def loop(esm, sequences, batch_size, by_length):
    """What users write: tokenise, pad to the longest of the batch, average over residues."""
    import torch

    from kft.backbones.esm2.model import encode

    order = np.argsort([len(s) for s in sequences]) if by_length else np.arange(len(sequences))
    out = np.empty((len(sequences), esm.config.hidden_size), "float32")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        token_ids = torch.tensor(encode([sequences[i] for i in chosen])["token_ids"]).long()
        with torch.no_grad():
            hidden = esm(token_ids, attention_mask=(token_ids != 1).long()).last_hidden_state
        out[chosen] = mean_over_residues(hidden, token_ids).numpy()
    return out


if __name__ == "__main__":
    main()
