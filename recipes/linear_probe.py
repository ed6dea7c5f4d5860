"""What does the backbone know as it is?

Its features stay as they are, and a linear head is solved for on them in closed form: logistic or
ridge regression, with the penalty that does best on the validation split. Seconds, no learning
rate, and the score that everything dearer has to beat.

Data: amp (modlamp, BSD-3-Clause), gb1 (FLIP, AFL-3.0; Wu et al. 2016, CC BY 4.0) or your CSV.
Command: KERAS_BACKEND=torch python recipes/linear_probe.py --data amp
Needs: with --backbone untrained 1.1 GB; on one busy core amp 6.4 s, gb1 14 s (torch).
Expect: then over five seeds test AUROC 0.855 ± 0.000 on amp, Spearman 0.651 ± 0.000 on gb1.
"""

import recipe


def main():
    parser = recipe.arguments(__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="most rows to solve with")
    args = parser.parse_args()
    data = recipe.data(args)
    strategy = recipe.strategy(args, "linear_probe", rows=args.rows)
    done = recipe.run(data, args, strategy)
    recipe.report(done, data, args, "linear_probe")


if __name__ == "__main__":
    main()
