"""Runs of each kind of data from each backend, used on the others: do they predict the same?

    python tests/benchmarks/predict_elsewhere.py --folder out/elsewhere

`kft finetune` makes a run of peptides (an adapter), protein chains, images and a plain table with
missing values on each backend. `kft predict RUN NEW OUT` then predicts the same new records in a
process of its own on each backend. Rows and columns of the input have to be there in their order,
the predicted classes have to be the same, and every row has to have a probability or an interval.
Prints the largest difference between backends. What is in the folder already is not repeated.
"""

import argparse
import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import kft

BACKENDS = ("torch", "jax", "tensorflow")
RECORDS = 40  # that are predicted
TOLERANCE = 1e-4  # of the largest number


@dataclass(frozen=True)
class Case:
    """One kind of data: what `kft finetune` is given, and the file of new records."""

    training: list
    new: Path
    target: str | None


def cases(folder):
    """{name: case}, with all files written to a folder."""
    cities = folder / "table.csv"
    table = simulated(400)
    table[:-RECORDS].to_csv(cities, sep=";", decimal=",", index=False)
    table[-RECORDS:].to_csv(folder / "new table.csv", sep=";", decimal=",", index=False)
    for name, per_class in (("amp", True), ("chains", False)):
        part = kft.data.load(name).test.inputs[::-1]
        part = part[: RECORDS if per_class else RECORDS // 4]
        rows = pd.DataFrame({"=note": range(len(part)), "sequence": part, "x;y": "a, b"})
        rows.to_csv(folder / f"new {name}.csv", index=False)
    images = folder / "new digits"
    images.mkdir(exist_ok=True)
    for i, pixels in enumerate(kft.data.load("digits").test.inputs[:RECORDS]):
        Image.fromarray(np.squeeze(pixels)).save(images / f"{i:02d}.png")
    probe = ["--strategy", "linear_probe"]
    options = {
        "amp": ["amp", "--strategy", "lora", "--epochs", 1],
        "chains": ["chains", *probe, "--max-length", 100],
        "digits": ["digits", *probe, "--image-size", 32],
        "table": [cities, "--target", "outcome", "--epochs", 10],
    }
    files = {name: folder / f"new {name}.csv" for name in options} | {"digits": images}
    return {name: Case(options[name], files[name], name) for name in options}


def simulated(count):
    """A table of numbers and categories, from which an outcome follows, with missing cells."""
    rng = np.random.default_rng(0)
    age, dose = rng.uniform(20, 80, count), rng.exponential(1.0, count)
    city = rng.choice(["Kraków", "Šibenik", "Århus"], count)
    outcome = age / 20 + dose + (city == "Århus") + rng.normal(0, 0.2, count)
    columns = {"age": age.round(1), "dose": dose.round(3), "city": city}
    table = pd.DataFrame({**columns, "outcome": outcome.round(3)})
    return table.assign(age=table["age"].where(rng.random(count) > 0.1))


def shell(log, backend, *arguments):
    """Run `kft` in a process of its own on a backend."""
    with open(log, "a") as stream:
        subprocess.run(
            [sys.executable, "-m", "kft.cli", *map(str, arguments)],
            env={**os.environ, "KERAS_BACKEND": backend},
            stdout=stream, stderr=stream, check=True,
        )  # fmt: skip


def cells(path):
    """The cells of a text file as they are written."""
    with open(path, encoding="utf-8-sig", newline="") as stream:
        dialect = csv.Sniffer().sniff(stream.readline(), ";,")
        stream.seek(0)
        return list(csv.reader(stream, delimiter=dialect.delimiter))


def given(new):
    """The cells that a prediction has to begin with."""
    if new.is_dir():
        return [["path"], *([path.name] for path in sorted(new.iterdir()))]
    return cells(new)


def added(new, out):
    """The columns that a prediction has added, as a DataFrame; the others are checked."""
    expected, rows = given(new), cells(out)
    width = len(expected[0])
    assert [row[:width] for row in rows] == expected, f"{out} does not begin with {new}"
    frame = pd.DataFrame([row[width:] for row in rows[1:]], columns=rows[0][width:])
    assert (frame != "").all(axis=None), f"{out} has empty cells"
    return frame


def numbers(frame):
    """The numbers of predictions, as they are or as several in a cell, and the names of classes."""
    shares = [name for name in frame if name.startswith("probability_")]
    columns = shares or list(frame)
    found = {x: np.array(" ".join(frame[x]).replace(",", ".").split(), float) for x in columns}
    return found, {name: frame[name].tolist() for name in frame if name not in columns}


def check_sure(found, words):
    """Each record has to have a probability of each class, or an interval."""
    ends = [name for name in found if name.endswith(("_low", "_high"))]
    if ends:
        low, high = (found[name] for name in ends)
        middle = found[ends[0].removesuffix("_low")]
        assert (low < middle).all() and (middle < high).all()
    else:
        assert words, "neither classes nor an interval"
        shares = np.stack(list(found.values()))
        total = shares.sum(axis=0) if len(found) > 1 else shares
        assert (shares >= 0).all() and (total <= 1 + 1e-4).all()


def difference(frames):
    """The largest difference between tables of predictions, as a share of the largest number."""
    pairs = [numbers(frame) for frame in frames]
    for found, words in pairs:
        assert list(found) == list(pairs[0][0]) and words == pairs[0][1], "other words or columns"
        check_sure(found, words)
    first = pairs[0][0]
    return max(
        float(np.max(abs(found[name] - first[name])) / np.max(abs(first[name])))
        for found, _ in pairs
        for name in first
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default="out/elsewhere")
    parser.add_argument("--data", nargs="+", default=["amp", "chains", "digits", "table"])
    args = parser.parse_args()
    folder = args.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, case in cases(folder).items():
        if name not in args.data:
            continue
        for trained in BACKENDS:
            run = folder / f"{name} {trained}"
            log = partial(shell, folder / "log.txt")
            files = {used: folder / f"{run.name} {used}.csv" for used in BACKENDS}
            if not all(file.exists() for file in files.values()):
                log(trained, "finetune", *case.training, "--out", run, "--no-baselines")
            for used, file in files.items():
                if not file.exists():
                    log(used, "predict", run, case.new, "--out", file)
            frames = [added(case.new, file) for file in files.values()]
            most = difference(frames)
            print(f"| {name} | {trained} | {len(frames[0])} | {most:.1e} |", flush=True)
            assert most < TOLERANCE


if __name__ == "__main__":
    main()
