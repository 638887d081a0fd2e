"""Where a training's batches come from: images and tensors in memory, loaders, and other iterables."""
