"""How well are the torsions of a chain predicted from its sequence?

Trains heads for phi, psi and omega on a protein language model, by several strategies, and compares
them with what the residue alone and a window of 15 residues tell. The loss is the likelihood of von
Mises distributions (`kft.losses.VonMises`), so each angle comes with how sure it is.

Data: chains (cgdms, MIT; structures of the PDB, CC0), see docs/structures.md.
Command: KERAS_BACKEND=torch python recipes/torsions.py
Needs: the package cgdms, see its error; 2 GB.
Expect: see docs/structures.md
"""

import recipe

if __name__ == "__main__":
    recipe.compare_on_chains(recipe.structure_arguments(__doc__), "torsions")
