"""What does a language model learn from protein sequences alone?

Trains an ESM-2 to fill in hidden residues: from random weights, or with `--backbone` from
pre-trained ones on your own proteins. A run that is stopped continues when it is started again.

Data: a corpus folder (train_*.tsv.gz, columns family and sequence), or your own FASTA file.
Command: KERAS_BACKEND=torch python recipes/pretrain_esm2.py --dtype mixed_bfloat16
Needs: 2 GB; 80 minutes on two cores that have matrix units for bfloat16 and nothing else to do.
Expect: kft_esm2_tiny, perplexity 16.2 on heldout_families (one seed); docs/pretraining.md
"""

import argparse
from pathlib import Path

import pandas as pd
import recipe

import kft
from kft import plots
from kft.backbones.esm2.model import ESM2
from kft.training import pretraining


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--corpus", type=Path, default=recipe.CORPUS, help="folder or FASTA file")
    add("--backbone", help="name or folder to start from; default: a new one, random weights")
    add("--blocks", type=count, default=3, help="blocks of a new backbone")
    add("--width", type=count, default=320, help="width of a new backbone")
    add("--heads", type=count, default=5, help="attention heads of a new backbone")
    add("--dtype", help="mixed_bfloat16 is twice as fast on a processor that has it")
    add("--epochs", type=count, default=54, help="number of epochs; after each the model is scored")
    add("--steps", type=count, default=150, help="steps per epoch")
    add("--tokens", type=count, default=6144, help="tokens per step")
    add("--crop", type=count, default=256, help="largest number of tokens of a protein")
    ratio = "fraction of residues that are chosen; 0.15 in ESM-2"
    add("--mask-ratio", type=recipe.fraction, default=0.4, help=ratio)
    add("--accumulate", type=count, default=1, help="steps whose gradients are averaged")
    add("--optimizer", choices=recipe.OPTIMIZERS, help="default: muon; with --backbone adamw")
    rate = "highest learning rate; default 2e-3, with --backbone 2e-4"
    add("--learning-rate", type=recipe.above_zero(float), help=rate)
    add("--seed", type=int, default=0, help="seed of weights, order and masks")
    add("--draw", type=Path, nargs="+", help="only draw these history.csv, of one run or several")
    add("--score", action="store_true", help="only score --backbone on held-out proteins")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/pretrain_esm2"), help="folder for results")
    args = parser.parse_args()
    if args.score and not args.backbone:
        parser.error("--score needs --backbone, the model to score")
    if missing := [file for file in args.draw or () if not file.is_file()]:
        parser.error(f"--draw: there is no file {missing[0]}")
    if args.tiny:
        args.epochs, args.steps, args.tokens, args.crop = 2, 2, 256, 64
    if not 8 <= args.crop <= args.tokens:
        parser.error(f"--crop must be 8 to --tokens, received {args.crop} and {args.tokens}")
    if args.steps * args.accumulate < 2:
        parser.error(f"--steps must be at least 2, received {args.steps}")
    args.optimizer = args.optimizer or ("adamw" if args.backbone else "muon")
    args.learning_rate = args.learning_rate or (2e-4 if args.backbone else 2e-3)
    return args


def draw(files, out):
    """Draw the curves of runs whose histories are in files, and print the caption."""
    tables = [pd.read_csv(file).assign(file=str(file.parent)) for file in files]
    runs = {
        run: rows.to_dict("records")
        for table in tables
        for run, rows in table.groupby("run" if "run" in table else "file", sort=False)
    }
    figure, caption = plots.plot_pretraining(runs, {}, "proteins that were left out")
    plots.save_figure(figure, caption, out / "perplexity.png")
    print(f"\n{caption}\n\nWritten: {out}/perplexity.png, with its caption.")


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.draw:
        draw(args.draw, args.out)
        return
    train, followed = recipe.corpus(args.corpus, args.tiny)
    if args.backbone:
        backbone = kft.load(args.backbone, dtype=args.dtype)
    else:
        backbone = ESM2(args.blocks, args.width, args.heads, dtype=args.dtype)
        backbone = kft.backbones.randomised(backbone, args.seed)
    if args.score:
        recipe.masked_report(args, backbone, train, followed)
        return
    print(kft.parameters(backbone.masked_lm))
    done = pretraining.pretrain(
        backbone,
        train,
        followed or None,
        epochs=args.epochs,
        steps=args.steps,
        tokens=args.tokens,
        crop=args.crop,
        learning_rate=args.learning_rate,
        accumulate=args.accumulate,
        optimizer=recipe.optimizer(args),
        mask_ratio=args.mask_ratio,
        seed=args.seed,
        out=args.out,
        verbose=2,
    )
    pd.DataFrame(done.history).to_csv(args.out / "history.csv", index=False)
    contacts = None if args.backbone else False  # nothing has trained them
    kft.backbones.save(backbone, args.out / "model", "float16", contacts=contacts)
    print(f"Written: {args.out}/model, which kft.load reads, and {args.out}/history.csv.")
    draw([args.out / "history.csv"], args.out)
    recipe.masked_report(args, backbone, train, followed)


if __name__ == "__main__":
    main()
