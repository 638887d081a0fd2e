"""MC dropout: the method, its masks, and the trial before training."""
