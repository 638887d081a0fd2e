"""Forged checkpoints, and files that would execute code if they were unpickled."""

import io
import os
import pickle
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.campaign import hostile
from tests.campaign.arrays import zipped
from tests.campaign.blobs import Change
from tests.campaign.inputs import Input
from tests.campaign.texts import places

MARK = "executed"
"""The folder that an executed pickle creates in the folder of the case."""


class _Evil:
    """An object that executes code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (MARK,)


def _saved(content: Any, is_zip: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def _evil(given: Input, rng: Random, size: int) -> None:
    objects = io.BytesIO()
    np.save(objects, np.array([_Evil()], dtype=object), allow_pickle=True)
    names = ("images.npy", "labels.npy", "logits.npy", "probs.npy", "split.npy", "class_names.npy", "likelihood.npy")
    given.forge(
        rng.choice(
            [
                pickle.dumps(_Evil(), protocol=rng.randrange(6)),
                pickle.dumps({"step": _Evil()}),
                _saved(_Evil()),
                _saved({"step": 1, "state": _Evil()}),
                _saved(_Evil(), is_zip=False),
                objects.getvalue(),
                zipped([(name, objects.getvalue()) for name in names]),
                b"!!python/object/apply:os.mkdir [executed]\n",
                b"seed: !!python/object/new:os.mkdir [executed]\n",
            ]
        )
    )


def _forged(given: Input, rng: Random, size: int) -> None:
    """Write an intact checkpoint with changed content."""
    content = torch.load(given.path, weights_only=True)
    for _ in range(size):
        owner, key = rng.choice([place for place in places(content) if not isinstance(place[0], Tensor)])
        how = rng.random()
        if how < 0.25:
            del owner[key]
        elif isinstance(owner[key], Tensor) and how < 0.8:
            owner[key] = rng.choice(_TENSORS)(owner[key])
        else:
            owner[key] = hostile.value(rng)
    given.forge(_saved(content if rng.random() < 0.93 else rng.choice([[], 1, "x", None, {}, torch.zeros(3)])))


_TENSORS: list[Callable[[Tensor], Tensor]] = [
    *(torch.Tensor.double, torch.Tensor.int, torch.Tensor.bool, torch.Tensor.to_sparse),
    *(
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor[None],
        lambda tensor: tensor.flatten()[:-1],
        lambda tensor: torch.zeros(0),
    ),
    *(lambda tensor: torch.tensor(1), lambda tensor: torch.full_like(tensor.float(), float("nan"))),
]
"""Changes of a tensor."""


def _step(given: Input, rng: Random, size: int) -> None:
    """Write a checkpoint with an impossible step."""
    content = torch.load(given.path, weights_only=True)
    content["step"] = rng.choice([-5, -1, 10**12, 10**30, 2.5, "3", None, float("nan"), [1], torch.tensor([1, 2])])
    given.forge(_saved(content))


PICKLES: dict[str, Change] = {"pickle": _evil, "other-pickle": _evil}
FORGERIES: dict[str, Change] = {"forged": _forged, "forged-twice": _forged}
STEPS: dict[str, Change] = {"step": _step}
