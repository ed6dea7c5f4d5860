"""Do a few label images make the masks of a SAM better, if its mask decoder alone is trained?

The image encoder is frozen: each image is encoded once, and an epoch costs the decoder alone.

Data: simulated cells (Apache-2.0, no download); or your own folder, `--data`, see
docs/segmentation.md.
Command: KERAS_BACKEND=torch python recipes/sam_decoder.py --data FOLDER
Needs: 4 GB; with --sam sam-vit-base 8 GB, and a GPU or patience.
Expect: docs/segmentation.md
"""

import recipe


def main():
    args = recipe.sam_arguments(__doc__).parse_args()
    sam = recipe.trained_sam(args, "mask_decoder")
    path = args.out / "sam_decoder" / f"{sam.name}.keras"
    path.parent.mkdir(parents=True, exist_ok=True)
    sam.save(path)
    print(f"Written: {path}, which kft.load_model and kft segment --model read.")


if __name__ == "__main__":
    main()
