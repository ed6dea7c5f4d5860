"""Do narrow corrections to the attention of a SAM do what training its mask decoder does?

Low-rank adapters are added to attention in the image encoder and in the mask decoder (Hu et al.
2021). The result is a separate file, and the model's own weights are not changed.

Data: simulated cells (Apache-2.0, no download); or your own folder, `--data`, see
docs/segmentation.md.
Command: KERAS_BACKEND=torch python recipes/sam_lora.py --data FOLDER
Needs: 4 GB; with --sam sam-vit-base a GPU, since the image encoder runs in each step.
Expect: docs/segmentation.md
"""

import recipe

import kft


def main():
    parser = recipe.sam_arguments(__doc__)
    parser.add_argument("--rank", type=recipe.above_zero(int), default=8, help="of the adapters")
    args = parser.parse_args()
    sam = recipe.trained_sam(args, kft.strategies.get("lora", rank=args.rank, alpha=args.rank))
    folder = kft.save_adapter(sam, args.out / "sam_lora" / "adapter")
    kilobytes = sum(file.stat().st_size for file in folder.iterdir()) / 1000
    print(f"Adapter: {kilobytes:,.0f} kB; all weights: {4 * sam.count_params() / 1000:,.0f} kB.")
    print(f"Written: {folder}, which kft.load_adapter reads.")


if __name__ == "__main__":
    main()
