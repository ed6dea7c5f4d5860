"""Measures training steps on a graphics card: tokens per second and MFU, beside PEFT with sdpa.

Command: python tests/benchmarks/gpu.py [--backends torch jax tensorflow] [--remat]
It takes less than 8 minutes on one card; `--tiny` is a smoke run on a processor.

Method: the shapes of esm2_t33_650M_UR50D with random weights, bfloat16 with float32 weights
(Keras's mixed_bfloat16, torch's autocast), Adam, a linear head, proteins of one length, so that no
token is padding; LoRA of rank 8 on query and value, or all weights. The peer is transformers with
attn_implementation="sdpa" and PEFT on torch. One process per row; the median over the steps of 15
seconds, after three that compile. The loss is read at every step, which waits for the card.

MFU is the fraction of the card's dense bfloat16 peak (`--peak`, in TFLOPS, for a card that is not
listed) that the products of the model need: forward 2 operations per weight of a matrix and token,
and 4 L D per block and token for attention; backward twice that, with LoRA once.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import numpy as np

BACKENDS = ("torch", "jax", "tensorflow")
WORK = ("lora", "all weights")
SIZES = {False: (33, 1280, 20), True: (2, 32, 4)}  # blocks, width, heads, by --tiny
BATCHES = {False: [(32, 256), (8, 1024)], True: [(2, 16)]}  # records and tokens of each
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40": 181, "L4": 121, "4090": 165, "V100": 125}
RANK, ALPHA, RATE = 8, 16, 1e-5


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=["torch", "jax"])
    parser.add_argument("--remat", action="store_true", help="kft with remat")
    parser.add_argument("--peak", type=float, help="of the card in bfloat16, in TFLOPS")
    parser.add_argument("--seconds", type=float, help="of each row; 15, with --tiny 1")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.seconds = options.seconds or (1 if options.tiny else 15)
    if options.inside:
        print(json.dumps(measure(options, **json.loads(options.inside))))
        return
    device = run("import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() "
                 "else 'processor, no graphics card')")  # fmt: skip
    peak = options.peak or next((x for name, x in PEAKS.items() if name in device), None)
    shape = "{} blocks of width {}, {} heads".format(*SIZES[options.tiny])
    print(f"{device}; peak {peak or 'unknown'} TFLOPS; {shape}\n")
    print("| batch | trained | side | ms | tokens/s | MFU | beside PEFT |")
    print("|---|---|---|---|---|---|---|")
    for batch, tokens in BATCHES[options.tiny]:
        for work in WORK:
            case = {"batch": batch, "tokens": tokens, "work": work}
            theirs = None
            for side in ("PEFT", *options.backends):
                seconds = row(case | {"side": side}, options)
                theirs = seconds if side == "PEFT" else theirs
                print_row(case, side, seconds, theirs, peak, options)


def row(case, options):
    """Seconds of a step, in a process of its own; None where it failed, with the reason."""
    backend = "torch" if case["side"] == "PEFT" else case["side"]
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    flags = [name for name in ("tiny", "remat") if getattr(options, name)]
    more = [*(f"--{name}" for name in flags), "--seconds", str(options.seconds)]
    command = [sys.executable, __file__, *more, "--inside", json.dumps(case)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        print(f"{case}: {lines[-1][:300]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def print_row(case, side, seconds, theirs, peak, options):
    batch, tokens, work = case["batch"], case["tokens"], case["work"]
    about = f"| B{batch} L{tokens} | {work} | {side if side == 'PEFT' else f'kft, {side}'} |"
    if seconds is None:
        print(f"{about} failed | | | |", flush=True)
        return
    done = flops(*SIZES[options.tiny][:2], batch, tokens, work) / seconds
    mfu = f"{done / peak / 1e12:.1%}" if peak else ""
    ratio = f"{theirs / seconds:.2f} x" if theirs and side != "PEFT" else ""
    print(f"{about} {1e3 * seconds:.1f} | {batch * tokens / seconds:,.0f} | {mfu} | {ratio} |",
          flush=True)  # fmt: skip


def flops(blocks, width, batch, tokens, work):
    """Operations of a step that the model needs."""
    forward = batch * tokens * blocks * (2 * 12 * width**2 + 4 * tokens * width)
    return forward * (2 if work == "lora" else 3)


# In the process of a row --------------------------------------------------------------------------


def measure(options, batch, tokens, work, side):
    rng = np.random.default_rng(0)
    letters = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    proteins = ["".join(rng.choice(letters, tokens - 2)) for _ in range(batch)]
    classes = rng.integers(0, 2, batch)
    make = theirs if side == "PEFT" else ours
    step = make(options, work, proteins, classes)
    seconds, ends = [], None
    for i in range(10_000):
        started = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - started)
        if i == 2:  # compiled
            ends = time.perf_counter() + options.seconds
        if ends is not None and i >= 5 and time.perf_counter() > ends:
            break
    if not np.isfinite(loss):
        raise FloatingPointError(f"the loss is {loss}")
    return statistics.median(seconds[3:])


def ours(options, work, proteins, classes):
    """A step of kft: a function that returns the loss."""
    import keras

    import kft

    backbone = kft.backbones.esm2.ESM2(*SIZES[options.tiny], dtype="mixed_bfloat16")
    model = kft.Model(backbone, kft.heads.Classification(2), remat=options.remat)
    if work == "lora":
        kft.add_lora(model, RANK, ALPHA)
    model.compile(keras.optimizers.Adam(RATE), model.head.make_loss())
    inputs = model.encode(proteins)
    return lambda: float(model.train_on_batch(inputs, classes))


def theirs(options, work, proteins, classes):
    """The same step of transformers and PEFT."""
    import peft
    import torch
    from transformers import EsmConfig, EsmModel

    from kft.backbones.residue_tokens import encode

    device = "cuda" if torch.cuda.is_available() else "cpu"
    blocks, width, heads = SIZES[options.tiny]
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=width,
        num_hidden_layers=blocks, num_attention_heads=heads, intermediate_size=4 * width,
        position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
        layer_norm_eps=1e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        attn_implementation="sdpa",
    )  # fmt: skip
    model = EsmModel(config, add_pooling_layer=False)
    if work == "lora":
        exclude = r".*contact_head.*"
        lora = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["query", "value"],
                               exclude_modules=exclude)  # fmt: skip
        model = peft.get_peft_model(model, lora)
    model = model.to(device).train()
    head = torch.nn.Linear(width, 2).to(device)
    learning = [p for p in [*model.parameters(), *head.parameters()] if p.requires_grad]
    adam = torch.optim.Adam(learning, RATE)
    ids = torch.tensor(encode(proteins)["token_ids"], dtype=torch.long, device=device)
    targets = torch.tensor(classes, device=device)
    mask = torch.ones_like(ids)

    def step():
        adam.zero_grad(set_to_none=True)
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        logits = head(hidden[:, 1:-1].float().mean(1))
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        adam.step()
        return float(loss)

    return step


if __name__ == "__main__":
    main()
