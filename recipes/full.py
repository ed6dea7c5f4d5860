"""What is the best score of this backbone?

All weights are trained, slowly and for a few epochs, with a warm-up. The most expensive strategy in
time and memory. `--find-learning-rate` runs a range test first.

Data: amp (modlamp, BSD-3-Clause), gb1 (FLIP, AFL-3.0; Wu et al. 2016, CC BY 4.0) or your CSV.
Command: KERAS_BACKEND=torch python recipes/full.py --data amp
Needs: with --backbone untrained 1.2 GB; on one busy core amp 149 s, gb1 272 s (torch).
Expect: then over five seeds test AUROC 0.946 ± 0.005 on amp, Spearman 0.753 ± 0.024 on gb1.
"""

import recipe

import kft


def main():
    parser = recipe.arguments(__doc__)
    decay = "ratio of the learning rates of neighbouring blocks"
    parser.add_argument("--layer-decay", type=float, default=1.0, help=decay)
    parser.add_argument("--find-learning-rate", action="store_true", help="by a range test")
    args = parser.parse_args()
    data = recipe.data(args)
    if args.find_learning_rate:
        model = kft.Model(recipe.backbone(args), recipe.head(data))
        records = kft.batches(data.train, model.encode, args.batch_size, seed=args.seed)
        args.learning_rate = kft.find_learning_rate(model, records).suggestion
        print(f"The range test suggests a highest learning rate of {args.learning_rate:.1e}.")
    strategy = recipe.strategy(args, "full", layer_decay=args.layer_decay)
    done = recipe.run(data, args, strategy)
    recipe.report(done, data, args, "full")


if __name__ == "__main__":
    main()
