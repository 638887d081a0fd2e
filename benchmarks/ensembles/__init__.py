"""Run the study of ensembles in parts, on machines without a shared disk."""
