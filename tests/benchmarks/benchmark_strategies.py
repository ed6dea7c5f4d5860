"""Times strategies at the frozen frontier beside a plain transformers loop on torch.

Command: KFT_DATA=... KERAS_BACKEND=torch python tests/benchmarks/benchmark_strategies.py
(`--records 640` takes fewer, `--core 0` pins the work to a core and counts CPU time). It prints the
table of docs/benchmarks.md.

Data: GB1, three-vs-rest, cropped to 56 residues; the training records, in batches of 32. Both sides
have the same weights and shape, mean pooling and a linear head, and in one process one runs after
the other. The peer is the usual loop: frozen weights have `requires_grad = False`, and every epoch
runs the whole model. kft is `kft.fit`, all that it does included: encoding, features, compiling.
The linear probe stands beside 20 epochs of the loop with a frozen backbone.

"bound" is what saving the frozen blocks can gain: E (n + 2k) / ((n - k) + 3kE) for n blocks of
which k learn in E epochs, where a backward pass costs two forward ones. A ratio above it is the
rest: steps that are themselves faster.
"""

import argparse
import os
import tempfile
import time

import numpy as np

ROWS = {  # what it is: blocks, width, heads, blocks that learn, epochs, most records
    "linear probe, 6 blocks": (6, 320, 20, 0, 20, None),
    "last two of 6 blocks": (6, 320, 20, 2, 10, None),
    "last two of 30 blocks": (30, 640, 20, 2, 10, 256),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, help="most records")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--core", type=int, help="pin to this core and count CPU time")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, [options.core])
    import keras

    import kft

    train = kft.data.load("gb1", crop=True).train
    print(f"kft on {keras.backend.backend()}, keras {keras.__version__}\n")
    print("| work | records | epochs | kft, s | transformers, s | ratio | bound |")
    print("|---|---|---|---|---|---|---|")
    for name in options.rows:
        *_, learning, epochs, most = ROWS[name]
        part = train.take(range(min(options.records or len(train), most or len(train))))
        ours, theirs = measure(part, *ROWS[name][:5])
        bound = gain(ROWS[name][0], learning, epochs)
        print(
            f"| {name} | {len(part)} | {epochs} | {ours:.1f} | {theirs:.1f} | "
            f"**{theirs / ours:.2f}** | {bound:.2f} |",
            flush=True,
        )


def gain(n, k, epochs):
    return epochs * (n + 2 * k) / ((n - k) + 3 * k * epochs)


def now():
    """Seconds; on one core only those that this process had, so that other work does not count."""
    return time.process_time() if len(os.sched_getaffinity(0)) == 1 else time.perf_counter()


def measure(part, blocks, width, heads, learning, epochs):
    """Seconds of kft and of the loop."""
    import keras
    import torch

    import kft

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    esm = peer_model(blocks, width, heads)
    with tempfile.TemporaryDirectory() as folder:
        esm.save_pretrained(folder)
        backbone = kft.load(folder)
    targets = part.targets
    head = kft.heads.Regression(mean=targets.mean(), std=targets.std())
    model = kft.Model(backbone, head)
    records = part.inputs, targets
    started = now()
    if learning:
        strategy = kft.strategies.get(
            "last_blocks", blocks=learning, epochs=epochs, learning_rate=1e-4
        )
        adam = {"optimizer": lambda rate, _: keras.optimizers.Adam(rate)}
        kft.fit(model, records, strategy, verbose=0, **adam)
    else:
        kft.fit(model, records, "linear_probe", verbose=0)
    ours = now() - started
    token_ids = backbone.encode(part.inputs)["token_ids"]
    scaled = (targets - targets.mean()) / targets.std()
    started = now()
    loop(esm.esm, token_ids, scaled, learning, epochs)
    return ours, now() - started


def peer_model(blocks, width, heads):
    import torch
    from transformers import EsmConfig, EsmForMaskedLM

    torch.manual_seed(0)
    return EsmForMaskedLM(
        EsmConfig(
            vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=width,
            num_hidden_layers=blocks, num_attention_heads=heads, intermediate_size=4 * width,
            position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
            layer_norm_eps=1e-5, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip


def loop(esm, token_ids, targets, learning, epochs):
    """The usual one."""
    import torch

    esm.requires_grad_(False)
    late = list(esm.encoder.layer)[-learning:] if learning else []
    trained = [*late, esm.encoder.emb_layer_norm_after] if learning else []
    for module in trained:
        module.requires_grad_(True)
    head = torch.nn.Linear(esm.config.hidden_size, 1)
    parameters = [p for module in (*trained, head) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    ids = torch.tensor(np.ascontiguousarray(token_ids)).long()
    y = torch.tensor(targets).float()[:, None]
    for _ in range(epochs):
        for chosen in torch.randperm(len(ids)).split(32):
            batch = ids[chosen]
            hidden = esm(batch, attention_mask=(batch != 1).long()).last_hidden_state
            residues = ((batch != 0) & (batch != 1) & (batch != 2)).float()
            pooled = torch.einsum("bl,bld->bd", residues / residues.sum(1, keepdim=True), hidden)
            loss = torch.nn.functional.mse_loss(head(pooled), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


if __name__ == "__main__":
    main()
