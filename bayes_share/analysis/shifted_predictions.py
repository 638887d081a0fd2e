"""Predictions of a finished run for shifted images: out-of-distribution sets and corrupted test images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from bayes_share.data import Data, Split, load_ood
from bayes_share.data.cifar10c import CIFAR10C_TYPES, check_cifar10c, read_cifar10c
from bayes_share.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from bayes_share.data.ood import OODName
from bayes_share.data.reduction import in_form_of
from bayes_share.data.source import stratified
from bayes_share.data.source_files import source_stamp
from bayes_share.errors import InputError, unknown
from bayes_share.evaluation.image_sets import SetInfo, note_set
from bayes_share.evaluation.predictions import Outputs, Predictions
from bayes_share.evaluation.predictions_file import read_class_predictions, read_outputs, write_predictions
from bayes_share.inference import Training
from bayes_share.io.files import remove
from bayes_share.io.folder_lock import in_turn
from bayes_share.io.terminal import say
from bayes_share.runs.config import RunConfig
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.interrupt import InterruptedRun, terminable
from bayes_share.runs.loading import load_run
from bayes_share.runs.run_folder import RunFolder, noted_identity, remove_leftovers
from bayes_share.tasks import is_table
from bayes_share.tensors.seeding import generator

CIFAR10C = "cifar-10-c"

_TRAIN_IMAGES = 10_000  # maximum number of training images for the k-nn score


@dataclass(frozen=True)
class ShiftedSets:
    """The sets of images that a run has to predict.

    Args:
        ood: out-of-distribution sets; see `load_ood`.
        corruptions: corruptions of the test images: keys of `CORRUPTIONS`, "all", or "cifar-10-c:DIR".
        ood_images: the maximum number of images of each set; larger sets are sampled at random.
        corruption_images: the maximum number of test images to corrupt; the same random sample for all corruptions.

    Raises:
        InputError: if a name is invalid, two sets have the same name, or a number of images is less than 1.
    """

    ood: Sequence[str] = ()
    corruptions: Sequence[str] = ()
    ood_images: int = 10_000
    corruption_images: int = 2_000

    def __post_init__(self) -> None:
        if min(self.ood_images, self.corruption_images) < 1:
            raise InputError(f"a set must have at least 1 image, not {min(self.ood_images, self.corruption_images)}")
        names = self.ood_names
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"two out-of-distribution sets are called {name!r}: give one of them a name, NAME=...")
        for name in self.corruptions:
            if name not in (*CORRUPTIONS, "all") and not name.startswith(f"{CIFAR10C}:"):
                raise unknown("corruption", name, (*CORRUPTIONS, "all", f"{CIFAR10C}:DIR"))

    @property
    def ood_names(self) -> list[str]:
        """The names of the out-of-distribution sets."""
        return [OODName.parse(text).name for text in self.ood]

    @property
    def corruption_types(self) -> dict[str, str]:
        """The source of each corruption type, by its name in the run folder; empty for generated corruptions."""
        found: dict[str, str] = {}
        for name in self.corruptions:
            if name.startswith(f"{CIFAR10C}:"):
                found |= {f"{CIFAR10C}-{kind}": name for kind in CIFAR10C_TYPES}
            else:
                found |= dict.fromkeys(CORRUPTIONS if name == "all" else [name], "")
        return found


def predict_shifted(folder: RunFolder, shifted_sets: ShiftedSets, tell: Callable[[str], None] = say) -> None:
    """Predict the sets that are missing in the run folder, and save the predictions there.

    The predictions for an out-of-distribution set are saved in ``predictions/ood/NAME.npz``, with all components. If
    the network ends with a linear layer, they include features, and features of the test images and of at most 10,000
    training images, stratified by class, are added to ``predictions/test.npz`` and ``predictions/train.npz``. The
    predictions for corrupted images are saved in ``predictions/corruptions/TYPE-SEVERITY.npz`` as log-probabilities of
    the mixture, a single component. The images of each set are recorded in ``sets.json`` after its predictions, so that
    an interrupted call resumes with the set it was working on.

    Args:
        folder: the folder of a finished run.
        shifted_sets: the sets to predict.
        tell: a function that is called with a progress message for each set.

    Raises:
        InputError: if a set cannot be read or converted to the input of the network, or its name is already in use.
    """
    if is_table(data := read_run_config(folder.config).data):
        raise InputError(
            f"out-of-distribution and corrupted images require a run on images, and {folder.path} is a run on {data}"
        )
    if not _missing_ood(folder, shifted_sets) and not _missing_corruptions(folder, shifted_sets):
        return
    with terminable(), in_turn(folder.path):
        remove_leftovers(folder)
        try:
            _predict(folder, shifted_sets, tell)
        except KeyboardInterrupt as error:
            raise InterruptedRun(f"{folder.path}: stopped; the same command resumes") from error


def _predict(folder: RunFolder, shifted_sets: ShiftedSets, tell: Callable[[str], None]) -> None:
    """Predict the missing sets while holding the lock. Another process may have predicted them in the meantime."""
    ood, corruptions = _missing_ood(folder, shifted_sets), _missing_corruptions(folder, shifted_sets)
    if not ood and not corruptions:
        return
    for source in _changed(folder, shifted_sets):
        tell(f"{folder.path}: {source} has changed since it was predicted, and is predicted again")
    config = read_run_config(folder.config)
    training = load_run(folder.path)
    if ood:
        likelihood = read_outputs(folder.predictions("test")).likelihood
        stamps = [source_stamp(OODName.parse(text).source) for text in ood]
        sets = [load_ood(text, training.data, config.data_dir, shifted_sets.ood_images) for text in ood]
        _add_features(folder, training, config, tell)
        run = _stamp(folder)
        for found, stamp in zip(sets, stamps, strict=True):
            info = SetInfo(found.source, len(found.images), found.available, stamp)
            tell(f"{folder.path}: {found.name}, {info}")
            logits, features = training.predictor.with_features(found.images, config.num_samples)
            path = folder.predictions(f"ood/{found.name}")
            remove(path)  # so that the old entry in sets.json never describes new predictions
            write_predictions(path, Outputs(logits, features=features, likelihood=likelihood, stamp=run))
            note_set(path.parent, found.name, info)
    if corruptions:
        _predict_corruptions(folder, training, config, corruptions, shifted_sets.corruption_images, tell)


def _stamp(folder: RunFolder) -> str:
    """Return the stamp of the run from its summary; empty if it has none."""
    noted = noted_identity(folder)
    return "" if noted is None else noted.stamp


def images_to_corrupt(num_test: int, limit: int) -> Int64[Tensor, "image"]:
    """Return the indices of the test images to corrupt, the same for every type, severity and run.

    Args:
        num_test: the number of test images.
        limit: the maximum number of images to corrupt.
    """
    rng = generator(0, "corrupted images")
    return torch.randperm(num_test, generator=rng)[:limit].sort().values


def _missing_ood(folder: RunFolder, shifted_sets: ShiftedSets) -> list[str]:
    there = folder.sets("ood")
    missing = []
    for text in shifted_sets.ood:
        wanted = OODName.parse(text)
        info = there.get(wanted.name)
        if info is not None and info.source != wanted.source:
            raise InputError(
                f"{folder.path} already has predictions for a set {wanted.name!r} from {info.source}: give the "
                f"set from {wanted.source} another name, NAME={wanted.source}"
            )
        if info is None or not _is_there(info, wanted.source, shifted_sets.ood_images):
            missing.append(text)
    return missing


def _add_features(folder: RunFolder, training: Training, config: RunConfig, tell: Callable[[str], None]) -> None:
    """Add features of test and training images. Without a final linear layer, the files have no features."""
    if folder.predictions("train").is_file():
        return
    data = training.data
    test = read_class_predictions(folder.predictions("test"))
    tell(f"{folder.path}: computing features of test images, {SetInfo('', len(data.test), len(data.test))}")
    _, features = training.predictor.with_features(data.test.images, config.num_samples)
    if features is None:
        tell(f"{folder.path}: k-nn is not available, since the network does not end with a linear layer")
    write_predictions(folder.predictions("test"), replace(test, features=features, stamp=_stamp(folder)))
    train = data.train.to("cpu")
    if len(train) > _TRAIN_IMAGES:
        shares = (_TRAIN_IMAGES, len(train) - _TRAIN_IMAGES)
        train = train.at(stratified(train.labels, shares, generator(0, "training images"))[0])
    tell(f"{folder.path}: computing features of training images, {SetInfo('', len(train), len(data.train))}")
    logits, features = training.predictor.with_features(train.images, config.num_samples)
    trained = Predictions(
        logits,
        train.labels,
        features=features,
        likelihood=test.likelihood,
        stamp=_stamp(folder),
        class_names=test.class_names,
        names=train.names,
    )
    write_predictions(folder.predictions("train"), trained)


def _missing_corruptions(folder: RunFolder, shifted_sets: ShiftedSets) -> list[tuple[str, int, str]]:
    """Return type, severity and source of the corruptions without predictions."""
    there = folder.sets("corruptions")
    return [
        (kind, severity, source)
        for kind, source in shifted_sets.corruption_types.items()
        for severity in SEVERITIES
        if (info := there.get(f"{kind}-{severity}")) is None
        or not _is_there(info, source, shifted_sets.corruption_images)
    ]


def _changed(folder: RunFolder, shifted_sets: ShiftedSets) -> list[str]:
    """Return the requested sources whose files changed since they were predicted."""
    there = [*folder.sets("ood").values(), *folder.sets("corruptions").values()]
    asked = {OODName.parse(text).source for text in shifted_sets.ood} | set(shifted_sets.corruption_types.values())
    return sorted(
        {info.source for info in there if info.source in asked and info.has_changed(source_stamp(info.source))}
    )


def _is_there(info: SetInfo, source: str, limit: int) -> bool:
    """Return whether predictions cover the requested images of the current version of a source."""
    return info.covers(source, limit) and not info.has_changed(source_stamp(source))


def _predict_corruptions(
    folder: RunFolder,
    training: Training,
    config: RunConfig,
    missing: list[tuple[str, int, str]],
    limit: int,
    tell: Callable[[str], None],
) -> None:
    data = training.data
    stamps = {source: source_stamp(source) for _, _, source in missing}
    for source in filter(None, stamps):
        check_cifar10c(source.removeprefix(f"{CIFAR10C}:"), data)
    chosen, stamp = images_to_corrupt(len(data.test), limit), _stamp(folder)
    info = SetInfo("", len(chosen), len(data.test))
    likelihood = read_outputs(folder.predictions("test")).likelihood
    said = None
    for kind, severity, source in missing:
        if kind != said:
            tell(f"{folder.path}: {kind}, {info} at each severity")
            said = kind
        split = _corrupted(data, kind, severity, source, chosen).to(training.execution.torch_device)
        predicted = Outputs(training.predict(split, config.num_samples), likelihood=likelihood)
        mixture = predicted.mixture_logits.float()[None, None]
        path = folder.predictions(f"corruptions/{kind}-{severity}")
        remove(path)
        write_predictions(path, Predictions(mixture, split.labels, likelihood=likelihood, stamp=stamp))
        note_set(path.parent, path.stem, replace(info, source=source, stamp=stamps[source]))


def _corrupted(data: Data, kind: str, severity: int, source: str, chosen: Tensor) -> Split:
    if source:
        where = source.removeprefix(f"{CIFAR10C}:")
        stored = read_cifar10c(where, kind.removeprefix(f"{CIFAR10C}-"), severity, chosen)
        return Split(in_form_of(data, stored.images, source), stored.labels)
    test = data.test.at(chosen).to("cpu")
    return Split(corrupt(test.images, kind, severity), test.labels)
