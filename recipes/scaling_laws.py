"""How does the loss fall with parameters, data and compute?

Pre-trains several sizes, one also on fractions of the proteins; fits and draws the power laws of
Kaplan et al. 2020. Finished runs are not repeated; `--table` draws those of an earlier study.

Data: a corpus folder (train_*.tsv.gz, columns family and sequence), or your own FASTA file.
Command: KERAS_BACKEND=torch python recipes/scaling_laws.py --dtype mixed_bfloat16
Needs: 2 GB; 32 minutes on one core.
Expect: exponents 0.59 of compute, 0.20 of parameters; more in docs/pretraining.md.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe

import kft
from kft import plots
from kft.backbones.esm2.model import ESM2
from kft.evaluation import scaling
from kft.training import pretraining

SIZES = [(1, 32, 1), (2, 32, 1), (2, 64, 1), (3, 96, 2), (3, 128, 2), (3, 192, 3), (3, 256, 4)]
FRACTIONS = [1 / 1024, 1 / 256, 1 / 64, 1 / 16]  # the last is seen once; of all, as much is
LEARNS_FROM_LESS = (3, 128, 2)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--corpus", type=Path, default=recipe.CORPUS, help="folder or FASTA file")
    add("--table", type=Path, help="only draw the scaling_laws.csv of an earlier study")
    add("--dtype", help="mixed_bfloat16 is faster on a processor that has it")
    add("--epochs", type=count, default=4, help="number of epochs; after each the model is scored")
    add("--steps", type=count, default=128, help="steps per epoch")
    add("--tokens", type=count, default=4096, help="tokens per step")
    add("--optimizer", choices=recipe.OPTIMIZERS, default="muon", help="muon needs fewer steps")
    add("--learning-rate", type=recipe.above_zero(float), default=2e-3, help="highest one")
    add("--tiny", action="store_true", help="a run of a few seconds, to test the recipe")
    add("--out", type=Path, default=Path("out/scaling_laws"), help="folder for results")
    args = parser.parse_args()
    if args.table and not args.table.is_file():
        parser.error(f"--table: there is no file {args.table}")
    return args


def trained(size, fraction, train, followed, args):
    """Run one pre-training; return a table with a row for each epoch."""
    name = "{}x{}".format(*size) + ("" if fraction == 1 else f", 1/{round(1 / fraction)}")
    print(f"\n{name}")
    some = train[: max(1, round(fraction * len(train)))]
    backbone = kft.backbones.randomised(ESM2(*size, dtype=args.dtype), 0)
    options = {name: getattr(args, name) for name in ("epochs", "steps", "tokens", "learning_rate")}
    options |= {"optimizer": recipe.optimizer(args), "out": args.out / name.replace("/", "_")}
    done = pretraining.pretrain(backbone, some, followed, crop=128, verbose=2, **options)
    parameters = sum(stage.count_params() for stage in backbone.stages[1:])
    history, residues = pd.DataFrame(done.history), sum(map(len, some))
    fixed = {"parameters": parameters, "data_fraction": fraction, "residues": residues}
    table = pd.DataFrame({"run": name, **fixed, "seen": history.residues})
    operations = scaling.compute(parameters, table.seen)
    return table.assign(operations=operations, loss=np.log(history.val_perplexity))


def study(args):
    train, followed = recipe.corpus(args.corpus, args.tiny)
    if not followed:
        raise SystemExit("Too few families to keep some out: at least 10 are needed.")
    train = pd.Series(train).sample(frac=1, random_state=0).tolist()  # files are sorted by family
    runs = [(size, 1) for size in SIZES] + [(LEARNS_FROM_LESS, part) for part in FRACTIONS]
    if args.tiny:
        runs, args.epochs, args.steps, args.tokens = runs[::4], 2, 2, 256
    tables = []
    for size, fraction in runs:
        tables.append(trained(size, fraction, train, followed, args))
        table = pd.concat(tables, ignore_index=True)
        table.to_csv(args.out / "scaling_laws.csv", index=False, float_format="%.6g")
    return table


def panels(table):
    """The three panels of Kaplan et al. 2020, figure 1, from the rows of all runs."""
    on_all_data = table[table.data_fraction == 1].groupby("run", sort=False)
    curves = [(run.operations, run.loss) for _, run in on_all_data]
    ends = table.drop_duplicates("run", keep="last").set_index("run")
    ends["loss"] = table.groupby("run").loss.min()  # as with early stopping
    by_data = ends[ends.parameters.isin(ends[ends.data_fraction < 1].parameters)]
    by_size = ends[ends.data_fraction == 1]
    points = {
        "compute (operations)": (*scaling.frontier(*zip(*curves, strict=True)), curves),
        "data (residues)": (by_data[["residues", "seen"]].min(axis=1), by_data.loss, None, ()),
        "parameters": (by_size.parameters, by_size.loss, None, ()),
    }
    fitted = {}
    for name, (x, losses, runs, behind) in points.items():
        try:
            law = scaling.fit_power_law(x, losses, runs=runs)
        except ValueError as error:
            raise SystemExit(f"No power law of {name}: {error}") from error
        fitted[name] = plots.Panel(x, losses, law, law.exponent, law.floor, behind)
    return fitted


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    table = pd.read_csv(args.table) if args.table else study(args)
    table = table.rename(columns={"share": "data_fraction"})  # its name in earlier versions
    if args.tiny:
        return  # too few steps for a power law
    number, millions = table.run.nunique(), table.seen.max() / 1e6
    how = f"{number} runs of {millions:.1f} million residues each; their rate falls to their ends."
    figure, caption = plots.plot_scaling(panels(table), how)
    plots.save_figure(figure, caption, args.out / "scaling_laws.png")
    print(f"\n{caption}\n\nWritten: {args.out}, scaling_laws.csv and .png with its caption.")


if __name__ == "__main__":
    main()
