"""What does a language model learn from protein sequences alone?

Trains an ESM-2 to fill in hidden residues: from random weights, or with `--backbone` further on
proteins of your own, before they are labelled. A run that is stopped goes on when it is started
again.

Data: a corpus folder (train_*.tsv.gz, columns family and sequence), or a FASTA file of yours.
Command: KERAS_BACKEND=torch python recipes/pretrain_esm2.py --dtype mixed_bfloat16
Needs: 8 minutes on one busy core, whose processor has matrix units for bfloat16.
Expect: perplexity 17.38 on 400 families left out, after 2.1 million residues (one seed).
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

import kft
from kft import pretraining, recipe, scoring
from kft.backbones.esm2 import ESM2

HELD_OUT = ("heldout_families", "valid", "test")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    corpus = Path(os.environ.get("KFT_DATA", "."), "protein_corpus")
    add("--corpus", type=Path, default=corpus, help="folder or FASTA file")
    add("--backbone", help="name or folder to go on from; default: random weights")
    add("--blocks", type=count, default=3, help="of a new one")
    add("--width", type=count, default=320, help="of a new one")
    add("--heads", type=count, default=5, help="of a new one")
    add("--dtype", help="mixed_bfloat16 is twice as fast where the processor knows it")
    add("--epochs", type=count, default=4, help="after each it is scored and kept")
    add("--steps", type=count, default=64, help="of an epoch")
    add("--tokens", type=count, default=8192, help="of a step")
    add("--crop", type=count, default=128, help="most tokens of a protein")
    add("--accumulate", type=count, default=1, help="steps whose gradients are averaged")
    add("--rate", type=recipe.above_zero(float), default=2e-3, help="highest learning rate")
    add("--seed", type=int, default=0, help="of weights, order and masks")
    add("--score", action="store_true", help="only score --backbone on what was held out")
    add("--tiny", action="store_true", help="a run of seconds, to see that it runs")
    add("--out", type=Path, default=Path("out/pretrain_esm2"), help="folder for what is written")
    args = parser.parse_args()
    if args.score and not args.backbone:
        parser.error("--score needs --backbone, the model that is to be scored")
    if not args.corpus.exists():
        parser.error(f"there is no {args.corpus}: give --corpus a FASTA file or a corpus folder")
    return args


def read(path):
    """A table with column sequence, and family where it is known."""
    if path.suffix == ".gz" and ".tsv" in path.suffixes:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    return pd.DataFrame({"sequence": [record.sequence for record in kft.data.read_fasta(path)]})


def corpus(args):
    """Sequences to train on, and one each of 400 families that are kept out, to follow it by."""
    files = sorted(args.corpus.glob("train_*.tsv.gz")) if args.corpus.is_dir() else [args.corpus]
    table = pd.concat([read(path) for path in files[: 1 if args.tiny else None]])
    if "family" not in table:
        table["family"] = np.arange(len(table))
    sizes = table.family.value_counts(sort=False)
    # Not a large one: a single family holds half of the corpus.
    families = np.random.default_rng(0).permutation(sizes.index[sizes <= 50])
    kept_out = families[: min(400, len(families) // 10)]
    out = table.family.isin(kept_out)
    followed = table[out].drop_duplicates("family").sequence.tolist()
    train = table[~out].sequence.tolist()
    print(f"{args.corpus}: {len(train):,} proteins, {sum(map(len, train)):,} residues to train on; "
          f"{len(followed)} others to follow it by, that are left out.")  # fmt: skip
    return (train[:100], followed[:20]) if args.tiny else (train, followed)


def report(args, backbone, train, followed):
    """Prints scores where <mask> stands, beside what needs no network."""
    files = {name: args.corpus / f"{name}.tsv.gz" for name in HELD_OUT}
    sets = {name: read(path).sequence.tolist() for name, path in files.items() if path.exists()}
    for name, proteins in (sets or ({"left out": followed} if followed else {})).items():
        proteins = proteins[: 20 if args.tiny else None]
        scores = scoring.reference_scores(proteins, train, backbone.encode)
        scores["this model"] = scoring.masked_score(backbone, proteins)
        print(f"\n{name}: {len(proteins)} proteins, {scores['uniform'].masked:,} <mask>")
        for method, score in scores.items():
            print(f"  {method:<20} perplexity {score.perplexity!s:<24} accuracy {score.accuracy}")


def main():
    args = arguments()
    train, followed = corpus(args)
    if args.tiny:
        args.epochs, args.steps, args.tokens, args.crop = 2, 2, 256, 64
    if args.backbone:
        backbone = kft.load(args.backbone, dtype=args.dtype)
    else:
        backbone = ESM2(args.blocks, args.width, args.heads, dtype=args.dtype)
        backbone = kft.backbones.randomised(backbone, args.seed)
    if args.score:
        report(args, backbone, train, followed)
        return
    print(kft.parameters(backbone.masked_lm))
    done = pretraining.pretrain(
        backbone, train, followed or None, epochs=args.epochs, steps=args.steps, tokens=args.tokens,
        crop=args.crop, accumulate=args.accumulate, rate=args.rate, seed=args.seed, out=args.out,
        verbose=2,
    )  # fmt: skip
    pd.DataFrame(done.history).to_csv(args.out / "history.csv", index=False)
    kft.backbones.save(backbone, args.out / "model", "float16")
    print(f"Written: {args.out}/model, which kft.load reads, and {args.out}/history.csv.")
    report(args, backbone, train, followed)


if __name__ == "__main__":
    main()
