"""Proteins to pre-train on, the optimizer of a pre-training, and its scores."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from kft.data import read_fasta
from kft.inference import scoring
from kft.training.optimizers import muon
from kft.training.pretraining import ADAMW

OPTIMIZERS = ("adamw", "muon")
CORPUS = Path(os.environ.get("KFT_DATA", "."), "protein_corpus")
HELD_OUT = ("heldout_families", "valid", "test")


def proteins(path):
    """Read proteins from a .tsv.gz or FASTA file.

    Args:
        path: Path of the file.

    Returns:
        pandas.DataFrame with a column `sequence` and, where families are known, `family`.
    """
    if path.suffix == ".gz" and ".tsv" in path.suffixes:
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    return pd.DataFrame({"sequence": [record.sequence for record in read_fasta(path)]})


def corpus(path, tiny):
    """Read proteins to pre-train on, and print their number.

    Args:
        path: A folder of train_*.tsv.gz with columns family and sequence, or a FASTA file.
        tiny: Whether to read only a few proteins of the first file.

    Returns:
        Two lists of strings: training proteins, and validation proteins, one of each of 400 other
        families.

    Raises:
        SystemExit: There is no such folder or file.
    """
    files = sorted(path.glob("train_*.tsv.gz")) if path.is_dir() else [path]
    if not (files and files[0].exists()):
        raise SystemExit(f"There is no corpus in {path}: give --corpus a FASTA file or a folder.")
    table = pd.concat([proteins(file) for file in files[: 1 if tiny else None]])
    if "family" not in table:
        table["family"] = np.arange(len(table))
    sizes = table.family.value_counts(sort=False)
    # Only small families: the largest one has half of the corpus.
    families = np.random.default_rng(0).permutation(sizes.index[sizes <= 50])
    left_out = families[: min(400, len(families) // 10)]
    out = table.family.isin(left_out)
    valid = table[out].drop_duplicates("family").sequence.tolist()
    train = table[~out].sequence.tolist()
    print(
        f"{path}: {len(train):,} proteins, {sum(map(len, train)):,} residues to train on; "
        f"{len(valid)} others for validation."
    )
    return (train[:100], valid[:20]) if tiny else (train, valid)


def optimizer(args):
    """Choose the optimizer of a pre-training.

    Args:
        args: Arguments of the recipe.

    Returns:
        Function for the argument `optimizer` of `kft.pretraining.pretrain`.
    """
    if args.optimizer == "adamw":
        return ADAMW
    half = "bfloat16" if "bfloat16" in (args.dtype or "") else None
    return partial(muon, adam_beta_2=0.98, dtype=half)


def masked_report(args, backbone, train, valid):
    """Print scores at <mask> for held-out proteins, next to those of simple statistics.

    Args:
        args: Arguments of the recipe.
        backbone: An ESM-2.
        train: List of the training proteins.
        valid: List of proteins to score where the corpus has no held-out files.
    """
    files = {name: args.corpus / f"{name}.tsv.gz" for name in HELD_OUT}
    sets = {name: proteins(x).sequence.tolist() for name, x in files.items() if x.exists()}
    for name, rows in (sets or ({"left out": valid} if valid else {})).items():
        rows = rows[: 20 if args.tiny else None]
        scores = scoring.reference_scores(rows, train, backbone.encode)
        scores["this model"] = scoring.masked_score(backbone, rows)
        print(f"\n{name}: {len(rows)} proteins, {scores['uniform'].masked:,} <mask>")
        for method, score in scores.items():
            print(f"  {method:<20} perplexity {score.perplexity!s:<24} accuracy {score.accuracy}")
