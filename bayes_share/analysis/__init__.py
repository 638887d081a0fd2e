"""What finished runs come to: comparison, conformal sets, dataset shift, diagnostics of their draws."""
