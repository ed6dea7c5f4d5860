"""What a SAM is worth on real nuclei: as it is, and after each strategy, beside what costs nothing.

Command: KFT_DATA=folder KERAS_BACKEND=torch python tests/benchmarks/benchmark_sam.py
    [--rows mask_decoder:80:1 ...] [--draw]

Data, split and baselines are those of benchmark_segmentation.py. A row is strategy:images:seed,
"as_it_is", or "grid": the true masks on the grid of the model's logits, which no strategy can
exceed by much. "+windows" after a strategy or "as_it_is" shows the model windows of 7 times the
side of each box, in training, too; there are no points then, and masks are also clipped to their
boxes, and the mean of four mirrored views. Each is trained on so many images of
train, drawn by the seed, with the weights of the best epoch on 20 images of valid, and scored on
all images of test: the IoU of the mask of the highest predicted IoU from the true box and from one
random point, automatic masks, and the rank correlation of predicted and true IoU over all objects
of box and point. Each image is one line of scores.csv, so that a stopped run continues with the
next row. The thresholds of automatic masks are those of kft_sam_tiny, which were chosen on 8 images
of valid.
"""

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from benchmark_remat import status
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import kft
from kft.data import read_segmentation
from kft.evaluation.means import mean_interval
from kft.plots import save_figure
from kft.segmentation import Predictor, Prompting, Settings, object_windows
from kft.segmentation.baselines import (
    disc_at_point,
    ellipse_in_box,
    median_radius,
    otsu_watershed,
)
from kft.segmentation.masks import boxes_of, cells_of, to_masks
from kft.segmentation.metrics import accuracy_at, iou_matrix, mask_iou
from kft.segmentation.predictor import _Enlarging
from kft.segmentation.prompts import draw_points
from kft.segmentation.training import trainer
from kft.training.prompted import compile_arguments_of, prompted_batches

STRATEGIES = ("iou_head", "mask_decoder", "lora", "full")
ROWS = [
    "baselines", "grid", "as_it_is", "mask_decoder:80:1", "iou_head:80:1", "full:80:1", "lora:80:1",
    "mask_decoder:20:1", "mask_decoder:5:1", "as_it_is+windows", "mask_decoder+windows:80:1",
    *(f"{name}:80:{seed}" for seed in (2, 3) for name in (*STRATEGIES, "mask_decoder+windows")),
    *(f"mask_decoder:{n}:{seed}" for seed in (2, 3) for n in (20, 5)),
]  # fmt: skip
AUTOMATIC = Settings(points_per_side=20, least_area=10, most_area=0.2)  # and of the model
STEPS, RATE = 300, {"iou_head": 1e-3, "mask_decoder": 5e-4, "lora": 5e-4, "full": 3e-4}
TIMES, WINDOW_STEPS = 7, 600
IN_WINDOWS = Prompting(1, 1, box_probability=1, best=0.3)  # of a box there is one mask
SHOWN = ("point", "box", "clipped, mirrored", "seconds")
COLUMNS = ("point", "box", "clipped", "clipped, mirrored", "SA", "at 0.5")


def data_of(name):
    """Return the data set, with few images in valid."""
    data = read_segmentation(Path(os.environ["KFT_DATA"]) / name)
    return replace(data, valid=data.valid.take(range(20)))


def trained(row, options, data):
    """Return the model of a row, and the seconds that its training took."""
    sam = kft.load(options.sam)
    if row.startswith("as_it_is"):
        return sam, 0.0
    strategy, images, seed = row.split(":")
    strategy, in_windows = strategy.removesuffix("+windows"), "+windows" in strategy
    images, seed = int(images), int(seed)
    chosen = np.random.default_rng(seed).permutation(len(data.train))[:images]
    few = replace(data, train=data.train.take(chosen))
    batch_size, steps, prompting = min(4, images), STEPS, Prompting(8, 1)
    if in_windows:
        few = object_windows(few, TIMES, seed=seed)
        batch_size, steps, prompting = 16, WINDOW_STEPS, IN_WINDOWS
    epochs = max(2, round(steps * batch_size / len(few.train)))
    begun = time.perf_counter()
    done = kft.fit(
        sam, few, strategy, epochs, batch_size=batch_size, learning_rate=RATE[strategy],
        prompting=prompting, seed=seed, verbose=0,
    )  # fmt: skip
    print(pd.DataFrame(done.history)[["loss", "val_loss", "val_iou"]].tail(3).to_string())
    return done.model, time.perf_counter() - begun


def automatic(labels, found):
    """Return SA and the score at 0.5 of a label image."""
    each = accuracy_at(iou_matrix(labels, found))
    return {"SA": each.mean(), "at 0.5": each[0]}


def scored(sam, image, labels, number, with_automatic, times=None):
    """Return the scores of one image, and predicted and true IoU of its masks."""
    masks, boxes = to_masks(labels), boxes_of(labels)
    predictor = Predictor(sam, times=times).set_image(image)
    scores, pairs = {}, []
    if times is None:
        points, _ = draw_points(masks, np.random.default_rng(number))
        scores["point"] = judged(predictor.predict(points), masks, pairs)
    scores["box"] = judged(predictor.predict(boxes=boxes), masks, pairs)
    for name, mirrored in (("clipped", False), ("clipped, mirrored", True)) if times else ():
        options = {"mirrored": mirrored, "clip_to_boxes": True}
        found = kft.segment(sam, image, boxes=boxes, times=times, **options)
        scores[name] = judged(found, masks, [])
    if with_automatic:
        scores |= automatic(labels, predictor.everything(AUTOMATIC).labels)
    return scores, np.concatenate(pairs, axis=1)


def judged(found, masks, pairs):
    """Return the mean IoU of a prediction; predicted and true IoU are appended to pairs."""
    iou = mask_iou(masks, found.best)
    pairs.append(np.stack([found.iou.max(axis=1), iou]))
    return iou.mean()


def baselines(image, labels, number, radius):
    """Return the scores of the masks that cost nothing."""
    masks = to_masks(labels)
    points, _ = draw_points(masks, np.random.default_rng(number))
    return {
        "point": mask_iou(masks, disc_at_point(points, radius, labels.shape)).mean(),
        "box": mask_iou(masks, ellipse_in_box(boxes_of(labels), labels.shape)).mean(),
        **automatic(labels, otsu_watershed(image)),
    }


def on_grid(sam, labels):
    """Return the mean IoU of masks that are right at each cell of the grid of the logits."""
    side = 4 * sam.grid
    enlarge = _Enlarging(labels.shape, sam.image_size, side)
    rows, columns = cells_of(labels.shape, side)
    ious = []
    for mask in to_masks(labels):
        logits = np.full((side, side), -8, "float32")
        logits[: len(rows), : len(columns)] = np.where(mask[np.ix_(rows, columns)], 8, -8)
        ious.append(mask_iou(mask[None], enlarge(logits)[None] > 0)[0])
    return {"box": np.mean(ious)}


def run(row, options, data):
    """Return the lines of a row, one for each image."""
    images = list(zip(data.test.inputs, data.test.targets, strict=True))[: options.images]
    if row == "baselines":
        radius = median_radius(data.train.targets)
        lines = [baselines(*pair, i, radius) for i, pair in enumerate(images)]
        return [{"row": row, "image": i, **line} for i, line in enumerate(lines)]
    if row == "grid":
        sam = kft.load(options.sam)
        return [
            {"row": row, "image": i, **on_grid(sam, labels)} for i, (_, labels) in enumerate(images)
        ]
    sam, seconds = trained(row, options, data)
    times = TIMES if "+windows" in row else None
    everything = times is None and not options.prompts_only
    found = [scored(sam, *pair, i, everything, times) for i, pair in enumerate(images)]
    rank = spearmanr(*np.concatenate([pairs for _, pairs in found], axis=1)).statistic
    about = {"row": row, "seconds": round(seconds, 1), "rank": round(float(rank), 4)}
    return [{**about, "image": i, **scores} for i, (scores, _) in enumerate(found)]


def table(scores):
    """Print means over images and seeds with intervals, and paired differences to the baselines."""
    scores["method"] = scores["row"].str.replace(r":\d+$", "", regex=True)
    base = scores[scores["row"] == "baselines"].set_index("image")
    for method, lines in scores.groupby("method", sort=False):
        parts = []
        for name in COLUMNS:
            if name not in lines or lines[name].isna().all():
                continue
            means = lines.groupby("image")[name].mean().dropna()  # over seeds
            beside = base["box" if name.startswith("clipped") else name]
            more = mean_interval(means - beside.reindex(means.index))
            parts.append(f"{name} {mean_interval(means)} ({more})")
        rows = lines.drop_duplicates("row")
        print(f"{method} ({len(rows)} seeds): {'; '.join(parts)}", end="")
        if method not in ("baselines", "grid"):
            ranks, seconds = rows["rank"], rows["seconds"]
            print(f"; rank correlation {ranks.mean():.3f} [{ranks.min():.3f}, {ranks.max():.3f}]; "
                  f"{seconds.median():.0f} s", end="")  # fmt: skip
        print()


def draw(scores, out):
    """Draw the scores of each method with what it costs, and against the number of images."""
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    cost, curve = figure.subplots(1, 2)
    scores["method"] = scores["row"].str.replace(r":\d+$", "", regex=True)
    scores = scores.reindex(columns=scores.columns.union(SHOWN))
    means = scores.groupby("method", sort=False)[list(SHOWN)].mean()
    means = means.reindex(means.index.union(["baselines"], sort=False))
    means["seconds"] = scores.groupby("method")["seconds"].median()  # other work took its share
    means["box"] = means.pop("clipped, mirrored").fillna(means["box"])
    methods = means[~means.index.str.contains(r"baselines|grid|:5|:20")].sort_values("box")
    images = [(0, "as_it_is"), *((n, f"mask_decoder:{n}") for n in (5, 20, 80))]
    there = [(n, method) for n, method in images if method in means.index]
    for name, colour, marker in (("point", "C0", "o"), ("box", "C1", "s")):
        cost.plot(methods[name], range(len(methods)), marker, color=colour)
        cost.axvline(means.loc["baselines", name], color=colour, linestyle=":", linewidth=1)
        curve.axhline(means.loc["baselines", name], color=colour, linestyle=":", linewidth=1)
        points = [(n, means.loc[method, name]) for n, method in there]
        curve.plot(*zip(*points, strict=True), f"{marker}-", color=colour, label=name)
    labels = [f"{m.split(':')[0]}, {s:.0f} s" for m, s in methods["seconds"].items()]
    cost.set_yticks(range(len(methods)), labels)
    cost.set(xlabel="mean IoU over images")
    curve.set(xlabel="images, mask_decoder", ylabel="mean IoU over images")
    curve.legend(title="prompt", loc=(0.6, 0.2))
    caption = (
        f"Mean IoU of masks from one point and from one box on {scores['image'].nunique()} images "
        f"of nuclei (test), with the seconds of training on 80 images on one core, and against the "
        f"number of images for mask_decoder; dotted: a disc at the point and the ellipse in the "
        f"box. In windows, masks are the mean of four mirrored views and clipped to the box."
    )
    save_figure(figure, caption, out / "score_and_cost.png")


def median_seconds(call, *args, repeats=5):
    """Return the median CPU seconds of a call, the first one left out."""
    taken = []
    for _ in range(1 + repeats):
        begun = time.process_time()
        call(*args)
        taken.append(time.process_time() - begun)
    return np.median(taken[1:])


def seconds_of_step(sam, objects):
    """Return the seconds of a step of the mask decoder that is given the embedding."""
    image = np.zeros((64, 64), "uint8")
    labels = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((16, 16), int))
    prompting = Prompting(objects, 1)
    train, _ = prompted_batches(sam, ([image], [labels]), 0, 1, prompting=prompting)
    arrays, zeros = train[0]
    del arrays["images"]
    arrays["frontier_0"] = np.zeros((1, *sam.embedding.shape[1:]), "float32")
    learner = trainer(sam, 1)
    learner.compile("sgd", **compile_arguments_of(sam))
    return median_seconds(learner.train_on_batch, arrays, zeros)


def costs(objects=10):
    """Print what encoding costs, and a step: with many objects, and without the image encoder.

    sam-vit-base has random weights.
    """
    for sam in (kft.load("kft_sam_tiny"), kft.load("sam-vit-base", weights=False)):
        kft.train_only(sam, "mask_decoder")
        pixels = {"images": np.zeros((1, sam.image_size, sam.image_size, 3), "float32")}
        Path("/proc/self/clear_refs").write_text("5")  # the peak is taken from here on
        before = status("VmRSS")
        encoding = median_seconds(sam.image_encoder.predict_on_batch, pixels, repeats=3)
        added = status("VmHWM") - before
        one, many = (seconds_of_step(sam, count) for count in (1, objects))
        print(
            f"{sam.name}: encoding an image {1000 * encoding:.0f} ms and {added:.0f} MiB; "
            f"a step of 1 object {1000 * one:.0f} ms, of {objects} objects {1000 * many:.0f} ms, "
            f"{many / (objects * one):.2f} of {objects} steps of 1; a step with the embedding kept "
            f"takes {many / (encoding + many):.2f} of one that encodes"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--rows", nargs="+", default=ROWS, help="strategy:images:seed, as_it_is or baselines")
    add("--sam", default="kft_sam_tiny", help="name or folder of the model")
    add("--images", type=int, help="of the test part [all]")
    add("--prompts-only", action="store_true", help="no automatic masks, which take longest")
    add("--draw", action="store_true", help="only print and draw what is there")
    add("--out", type=Path, default=Path("out/benchmark_sam"), help="folder of scores.csv")
    add("--costs", action="store_true", help="only what a step with ten objects costs")
    options = parser.parse_args()
    if options.costs:
        costs()
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "scores.csv"
    scores = pd.read_csv(path) if path.exists() else pd.DataFrame({"row": []})
    data = None if options.draw else data_of("nuclei")
    for row in [] if options.draw else options.rows:
        if row in set(scores["row"]):
            continue
        scores = pd.concat([scores, pd.DataFrame(run(row, options, data))], ignore_index=True)
        scores.to_csv(path, index=False)
        print(
            row, scores[scores["row"] == row].mean(numeric_only=True).round(3).to_dict(), flush=True
        )
    table(scores)
    draw(scores, options.out)


if __name__ == "__main__":
    main()
