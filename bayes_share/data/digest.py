"""A digest that identifies the data a run was trained and tested on."""

import json
from hashlib import sha256

from bayes_share.data.source import Source


def digest_of(source: Source) -> str:
    """Compute a digest of the images, labels and class names of each part, in order.

    For images decoded from files, the bytes of the files are used in place of the pixels, because decoders may differ
    between versions. Whether arrays are stored compressed does not matter.

    Args:
        source: the data that a reader found, before they are split.
    """
    found = sha256()
    for part in (source.train, source.validation, source.test):
        found.update(json.dumps(None if part is None else part.images.shape).encode())
        if part is not None:
            if not source.files:
                found.update(part.images.numpy().data)
            found.update(part.labels.numpy().astype("<i8").data)
    found.update(json.dumps([source.class_names, source.files]).encode())  # JSON is ASCII for any names
    return found.hexdigest()
