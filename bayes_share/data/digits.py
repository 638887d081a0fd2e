"""Scikit-learn's scans of handwritten digits: small, and available without a download."""

import numpy as np

from bayes_share.data.source import Source, checked_split


def read_digits() -> Source:
    """Read 1797 scans of 8 x 8 pixels in 10 classes, with their 17 grey levels rescaled to 0 to 255.

    Source: Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Source(checked_split(images, bunch.target, "digits"), class_names=tuple(map(str, bunch.target_names)))
