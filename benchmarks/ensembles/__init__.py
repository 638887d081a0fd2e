"""The study of ensembles in parts, on machines that share no disk."""
