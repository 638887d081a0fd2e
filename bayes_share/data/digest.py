"""Which data a run was trained and tested on, as one short text: other data have another one."""

import json
from hashlib import sha256

from bayes_share.data.source import Source


def digest_of(source: Source) -> str:
    """A digest of all that the results of a run depend on: images, labels and class names of each part, in order.

    Where images were decoded from files, the bytes of the files count in place of pixels, which another version of the
    decoder may give otherwise. How arrays are stored does not count, compressed or not.

    Args:
        source: what a reader found, before it is divided.
    """
    found = sha256()
    for part in (source.train, source.validation, source.test):
        found.update(json.dumps(None if part is None else part.images.shape).encode())
        if part is not None:
            if not source.files:
                found.update(part.images.numpy().data)
            found.update(part.labels.numpy().astype("<i8").data)
    found.update(json.dumps([source.class_names, source.files]).encode())  # ASCII, whatever the names are
    return found.hexdigest()
