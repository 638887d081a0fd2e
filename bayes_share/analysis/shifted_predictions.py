"""A finished run's predictions for images that it was not trained on: other data, and corrupted test images."""

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

_TRAIN_IMAGES = 10_000  # whose features neighbours are looked for among


@dataclass(frozen=True)
class ShiftedSets:
    """What a run is to predict.

    Args:
        ood: out-of-distribution sets, as `load_ood` takes them.
        corruptions: of the test images: keys of `CORRUPTIONS`, "all" of them, or "cifar-10-c:DIR".
        ood_images: a random sample of so many is taken of a larger set.
        corruption_images: a random sample of so many test images is corrupted, the same in each way.

    Raises:
        InputError: a name that cannot be, two sets of one name, or fewer than 1 image.
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
        """What the out-of-distribution sets are called."""
        return [OODName.parse(text).name for text in self.ood]

    @property
    def corruption_types(self) -> dict[str, str]:
        """Where each type of corruption is from, by its name in the run."""
        found: dict[str, str] = {}
        for name in self.corruptions:
            if name.startswith(f"{CIFAR10C}:"):
                found |= {f"{CIFAR10C}-{kind}": name for kind in CIFAR10C_TYPES}
            else:
                found |= dict.fromkeys(CORRUPTIONS if name == "all" else [name], "")
        return found


def predict_shifted(folder: RunFolder, shifted_sets: ShiftedSets, tell: Callable[[str], None] = say) -> None:
    """Predict what is not there yet, and leave it in the run's folder.

    An out-of-distribution set is in ``predictions/ood/NAME.npz``, with all components and, where the network ends in a
    linear layer, features; these also come to ``predictions/test.npz`` and, of at most 10,000 training images drawn by
    class, to ``predictions/train.npz``. A corruption is in ``predictions/corruptions/TYPE-SEVERITY.npz``, as the log
    probabilities of the mixture, one component. Beside them ``sets.json`` says what the images are; it is written
    after the predictions, so one that is stopped goes on with the set that it was at.

    Args:
        folder: of a finished run.
        shifted_sets: what to predict.
        tell: is told each set that is predicted, in a line.

    Raises:
        InputError: a set that cannot be read, or brought to the network's input, or one that is called as another one
            that is there.
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
    """Predict what is missing now: another process may have come first."""
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
            logits, features = training.predict_with_features(found.images, config.num_samples)
            path = folder.predictions(f"ood/{found.name}")
            remove(path)  # what is noted of it must not come to be said of others
            write_predictions(path, Outputs(logits, features=features, likelihood=likelihood, stamp=run))
            note_set(path.parent, found.name, info)
    if corruptions:
        _predict_corruptions(folder, training, config, corruptions, shifted_sets.corruption_images, tell)


def _stamp(folder: RunFolder) -> str:
    """Of the run, as its summary notes it."""
    noted = noted_identity(folder)
    return "" if noted is None else noted.stamp


def images_to_corrupt(num_test: int, limit: int) -> Int64[Tensor, "image"]:
    """Which of the test images are corrupted: the same ones for every type, severity and run.

    Args:
        num_test: how many there are.
        limit: how many are taken at most.
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
    """Features of test and training images; without them, where there is no last linear layer, the training file."""
    if folder.predictions("train").is_file():
        return
    data = training.data
    test = read_class_predictions(folder.predictions("test"))
    tell(f"{folder.path}: computing features of test images, {SetInfo('', len(data.test), len(data.test))}")
    _, features = training.predict_with_features(data.test.images, config.num_samples)
    if features is None:
        tell(f"{folder.path}: k-nn is not available, since the network does not end with a linear layer")
    write_predictions(folder.predictions("test"), replace(test, features=features, stamp=_stamp(folder)))
    train = data.train.to("cpu")
    if len(train) > _TRAIN_IMAGES:
        shares = (_TRAIN_IMAGES, len(train) - _TRAIN_IMAGES)
        train = train.at(stratified(train.labels, shares, generator(0, "training images"))[0])
    tell(f"{folder.path}: computing features of training images, {SetInfo('', len(train), len(data.train))}")
    logits, features = training.predict_with_features(train.images, config.num_samples)
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
    """Type, severity and source of what there are no predictions for."""
    there = folder.sets("corruptions")
    return [
        (kind, severity, source)
        for kind, source in shifted_sets.corruption_types.items()
        for severity in SEVERITIES
        if (info := there.get(f"{kind}-{severity}")) is None
        or not _is_there(info, source, shifted_sets.corruption_images)
    ]


def _changed(folder: RunFolder, shifted_sets: ShiftedSets) -> list[str]:
    """The sources that are to be predicted and were predicted before, when they were others."""
    there = [*folder.sets("ood").values(), *folder.sets("corruptions").values()]
    asked = {OODName.parse(text).source for text in shifted_sets.ood} | set(shifted_sets.corruption_types.values())
    return sorted(
        {info.source for info in there if info.source in asked and info.has_changed(source_stamp(info.source))}
    )


def _is_there(info: SetInfo, source: str, limit: int) -> bool:
    """Whether predictions are of so many images of a source, as it is now."""
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
