"""MC dropout: the algorithm, and its trial before training."""
