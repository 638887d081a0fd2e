"""Analysis of finished runs: comparison, conformal sets, dataset shift and diagnostics of draws."""
