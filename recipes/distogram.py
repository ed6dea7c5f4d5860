"""How well are the distances between residues predicted from the sequence?

Trains heads for the distogram of a chain (64 bins of the distance of two C-beta) on a protein
language model, by several strategies, and compares their log loss per pair with that of a baseline
that knows how far the two residues are apart in the sequence, and of one that also knows which they
are.

Data: chains (cgdms, MIT; structures of the PDB, CC0), see docs/structures.md.
Command: KERAS_BACKEND=torch python recipes/distogram.py
Needs: the package cgdms, see its error; 4 GB.
Expect: see docs/structures.md
"""

import recipe

if __name__ == "__main__":
    recipe.compare_on_chains(recipe.structure_arguments(__doc__), "distogram")
