"""Is a head that is trained by gradient better than a linear probe?

The backbone is frozen and computes features once. The head may have weights without a closed form:
here attention pooling, which learns the weight of each position. An epoch takes little time.

Data: amp (modlamp, BSD-3-Clause), gb1 (FLIP, AFL-3.0; Wu et al. 2016, CC BY 4.0) or your CSV.
Command: KERAS_BACKEND=torch python recipes/head_only.py --data amp
Needs: with --backbone untrained 1.1 GB; on one busy core amp 26 s, gb1 37 s (torch).
Expect: then over five seeds test AUROC 0.826 ± 0.001 on amp, Spearman 0.582 ± 0.008 on gb1.
"""

import recipe


def main():
    parser = recipe.arguments(__doc__)
    parser.add_argument("--warmup", type=float, default=0.1, help="fraction of the steps")
    args = parser.parse_args()
    data = recipe.data(args)
    strategy = recipe.strategy(args, "head_only", warmup=args.warmup)
    done = recipe.run(data, args, strategy)
    slowest = max(done.history, key=lambda row: row["val_loss"])
    print(f"Best epoch: {done.best_epoch + 1}; the worst was {slowest['epoch'] + 1}.")
    recipe.report(done, data, args, "head_only")


if __name__ == "__main__":
    main()
