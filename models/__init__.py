"""Networks, likelihoods, and `Model`, which joins one of each."""
