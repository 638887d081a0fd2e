"""Image data sets: loading, splitting into training, validation and test parts, augmentation and batches."""

from bayes_share.data.augmentation import AUGMENTATIONS
from bayes_share.data.batches import epoch_order, eval_batches, train_batch
from bayes_share.data.dataset import Data, Split
from bayes_share.data.load import load_data
from bayes_share.data.ood import OODSet, load_ood

__all__ = [
    "AUGMENTATIONS",
    "Data",
    "OODSet",
    "Split",
    "epoch_order",
    "eval_batches",
    "load_data",
    "load_ood",
    "train_batch",
]
