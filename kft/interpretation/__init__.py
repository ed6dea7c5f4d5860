"""Interpretation of vision models: activations and images that maximise them."""
