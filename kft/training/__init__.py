"""Training: batches, the frozen frontier, strategies, optimizers, callbacks, pre-training."""
