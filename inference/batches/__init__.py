"""Sources of training batches: images and tensors in memory, loaders and other iterables."""
