"""Images with label images: a data set of them, a reader of your own, and simulated cells."""
