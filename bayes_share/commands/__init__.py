"""The commands of ``bayes-share``, one module each."""
