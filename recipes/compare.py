"""Which strategy is best on my data?

Trains all strategies on the same splits, from several seeds, together with baselines and controls;
prints which differences are significant, the cost of each, and a recommendation. An interrupted run
continues.

Data: amp (modlamp, BSD-3-Clause), gb1 (FLIP, AFL-3.0; Wu et al. 2016, CC BY 4.0) or your CSV.
Command: KERAS_BACKEND=torch python recipes/compare.py --data amp --seeds 5
Needs: with --backbone untrained 1.3 GB; 10 minutes per seed on one busy core for amp (torch).
Expect: docs/choosing-a-strategy.md
"""

import recipe

import kft

STRATEGIES = [name for name in kft.strategies.names() if name != "from_scratch"]


def main():
    parser = recipe.arguments(__doc__)
    names = ", ".join(kft.strategies.names())
    add = parser.add_argument
    known = kft.strategies.names()
    add("--strategies", nargs="+", default=STRATEGIES, metavar="NAME", help=names, choices=known)
    add("--seeds", type=recipe.above_zero(int), default=3, help="trainings of each strategy")
    add("--overwrite", action="store_true", help="repeat trainings of an earlier run")
    args = parser.parse_args()
    data = recipe.data(args)
    # The control has its own settings for these data, as in its recipe.
    names = [*args.strategies, "from_scratch"]
    kft.compare(
        recipe.backbone(args),
        data,
        {name: recipe.strategy(args, name) for name in dict.fromkeys(names)},
        seeds=range(args.seed, args.seed + (1 if args.tiny else args.seeds)),
        head=recipe.head,
        batch_size=args.batch_size,
        max_length=args.max_length,
        out=args.out / "compare",
        overwrite=args.overwrite,
        save_models=True,
    )


if __name__ == "__main__":
    main()
