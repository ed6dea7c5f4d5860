"""What a model has learned to see: activations and dreams."""
