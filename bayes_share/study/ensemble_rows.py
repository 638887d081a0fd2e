"""The rows of the study of ensembles: each is a method, given as the options of its runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from bayes_share.errors import unknown
from bayes_share.runs.presets import PRESETS
from bayes_share.study.definition import check_once
from bayes_share.study.related_networks import of_width, twice_as_deep

MEMBERS = 4
"""Number of networks of the reference deep ensemble, and the default number of members of a row."""

Family = Literal["networks apart", "BatchEnsembles", "posterior draws", "students", "rivals"]

_DRAWS = 16
# Each network has its own order of examples and augmentation, as independently trained networks do.
_DEEP: Mapping[str, Any] = {"algorithm": "deep-ensemble", "of": "map", "networks": MEMBERS, "feed": "own"}
_IVON: Mapping[str, Any] = {"algorithm": "ivon", "num_samples": _DRAWS}
_SIGNS: Mapping[str, Any] = {"ensemble_size": MEMBERS, "init": "random_sign"}
_FIXED: Mapping[str, Any] = {"ensemble_size": MEMBERS, "init": "fixed_sign"}
# Options of Rank-1 networks after Dusenberry et al. 2020, arXiv 2005.07186, without the options of the optimizer.
_RANK1: Mapping[str, Any] = {
    name: PRESETS["rank1-cifar10"][name]
    for name in (
        *("algorithm", "latent", "factor_prior", "factor_prior_scale", "factor_prior_centre"),
        *("initial_scale", "factor_rate", "kl_warmup", "num_samples"),
    )
}
_DISTILLED: Mapping[str, Any] = {"algorithm": "distill", "of": "map", "temperature": 4.0}


def _same_width(model: str) -> str:
    return model


def _half_width(model: str) -> str:
    return of_width(model, 0.5)


def _twice_width(model: str) -> str:
    return of_width(model, MEMBERS**0.5)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        label: name in tables and figures.
        family: group of methods that the row belongs to.
        options: options of its runs, by their names on the command line; all others are the study's. The default
            algorithm is "map".
        teacher: row whose run of the same seed is the teacher.
        chosen_from: row with more members, from each of whose runs the best 4 members are selected on half of the
            validation images. A row with `chosen_from` has no runs of its own.
        network: returns the name of the row's network for the name of the study's network.
        is_core: whether the row is among the "core" rows, which are run by default.
    """

    label: str
    family: Family
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    teacher: str | None = None
    chosen_from: str | None = None
    network: Callable[[str], str] = _same_width
    is_core: bool = True


ROWS: dict[str, Row] = {
    "single": Row("one network", "networks apart"),
    "deep-ensemble": Row("deep ensemble of 4", "networks apart", _DEEP),
    "half-width": Row("four networks of half the width", "networks apart", _DEEP, network=_half_width),
    # Two members: relative to the weights, factors are twice as many at half the width. In all 1.05 times one network.
    "half-width-signs": Row(
        "four of half the width, each a BatchEnsemble of 2 (signs)",
        "BatchEnsembles",
        {**_DEEP, **_SIGNS, "ensemble_size": 2},
        network=_half_width,
    ),
    "normal": Row(
        "BatchEnsemble, N(1, .5²)", "BatchEnsembles", {"ensemble_size": MEMBERS, "init": "normal", "init_sd": 0.5}
    ),
    "signs": Row("BatchEnsemble, signs", "BatchEnsembles", _SIGNS),
    "fixed-signs": Row("BatchEnsemble, fixed signs", "BatchEnsembles", _FIXED),
    "fixed-signs-8": Row("fixed signs, 8 members", "BatchEnsembles", {**_FIXED, "ensemble_size": 8}),
    "fixed-signs-16": Row("fixed signs, 16 members", "BatchEnsembles", {**_FIXED, "ensemble_size": 16}),
    "signs-rank-4": Row("signs, rank 4", "BatchEnsembles", {**_SIGNS, "factor_rank": 4}),
    "additive-rank-4": Row(
        "additive, rank 4", "BatchEnsembles", {"ensemble_size": MEMBERS, "factor_form": "additive", "factor_rank": 4}
    ),
    "signs-own": Row("signs, own norms and head", "BatchEnsembles", {**_SIGNS, "own": ("norms", "head")}),
    "kept-4-of-16": Row(
        "four kept of 16 (fixed signs)",
        "BatchEnsembles",
        chosen_from="fixed-signs-16",
    ),
    "ivon": Row("IVON, 16 draws", "posterior draws", _IVON),
    "ivon-signs": Row("IVON over signs, 16 draws", "posterior draws", {**_IVON, **_SIGNS}),
    "mc-dropout": Row(
        "MC dropout .1, 16 draws",
        "posterior draws",
        {"algorithm": "mc-dropout", "dropout_rate": 0.1, "num_samples": _DRAWS},
    ),
    "mc-dropout-fixed-signs": Row(
        "MC dropout .1 over fixed signs, 4 draws",
        "posterior draws",
        {"algorithm": "mc-dropout", "dropout_rate": 0.1, "num_samples": _DRAWS // MEMBERS, **_FIXED},
        is_core=False,
    ),
    "mc-dropout-deep": Row(
        "deep ensemble of 4 with MC dropout .1, 4 draws",
        "networks apart",
        {**_DEEP, "of": "mc-dropout", "dropout_rate": 0.1, "num_samples": _DRAWS // MEMBERS},
        is_core=False,
    ),
    "distilled-single": Row("one network, distilled", "students", _DISTILLED, teacher="deep-ensemble"),
    "distilled-signs": Row(
        "BatchEnsemble (signs), distilled", "students", {**_DISTILLED, **_SIGNS}, teacher="deep-ensemble"
    ),
    "rank-1": Row("Rank-1 (SVI over factors), 4 draws", "posterior draws", {**_SIGNS, **_RANK1}, is_core=False),
    "swag": Row("SWAG, 16 draws", "posterior draws", {"algorithm": "swag", "num_samples": _DRAWS}, is_core=False),
    "signs-split": Row(
        "signs, batches split among members", "BatchEnsembles", {**_SIGNS, "feed": "split"}, is_core=False
    ),
    "signs-own-data": Row("signs, data of a member's own", "BatchEnsembles", {**_SIGNS, "feed": "own"}, is_core=False),
    "deep-ensemble-2": Row("deep ensemble of 2", "networks apart", {**_DEEP, "networks": 2}, is_core=False),
    "packed": Row(
        "packed ensemble of 4, α = 2", "rivals", {"ensemble_size": MEMBERS, "ensemble_kind": "packed"}, is_core=False
    ),
    "masked": Row(
        "Masksembles of 4, scale 2", "rivals", {"ensemble_size": MEMBERS, "ensemble_kind": "masked"}, is_core=False
    ),
    "mimo": Row(
        "MIMO of 2",
        "rivals",
        {"ensemble_size": 2, "ensemble_kind": "mimo", "feed": "own"},
        is_core=False,
    ),
    "half-width-fixed-signs": Row(
        "four of half the width, each a BatchEnsemble of 4 (fixed signs)",
        "BatchEnsembles",
        {**_DEEP, **_FIXED},
        network=_half_width,
        is_core=False,
    ),
    "wider": Row("one network of twice the width", "networks apart", network=_twice_width, is_core=False),
    "deeper-shared": Row(
        "signs, twice as deep, layers share weights",
        "BatchEnsembles",
        {**_SIGNS, "share_layers": "all"},
        network=twice_as_deep,
        is_core=False,
    ),
}
"""The rows by name, in the order of the table."""

_GROUPS: Mapping[str, Sequence[str]] = {
    "core": [name for name, row in ROWS.items() if row.is_core],
    "all": list(ROWS),
}


def chosen_rows(names: Sequence[str]) -> list[str]:
    """Expand a selection of rows, including the rows that they require, in the order of the table.

    Args:
        names: names of rows, or "core" or "all".

    Raises:
        InputError: if there are no names, a name is unknown, or a name is given more than once.

    >>> chosen_rows(["distilled-single", "single"])
    ['single', 'deep-ensemble', 'distilled-single']
    """
    check_once("row", names)
    for name in names:
        if name not in ROWS and name not in _GROUPS:
            raise unknown("row", name, (*_GROUPS, *ROWS))
    asked = [row for name in names for row in _GROUPS.get(name, [name])]
    needed = [row for name in asked for row in (ROWS[name].teacher, ROWS[name].chosen_from) if row is not None]
    return [name for name in ROWS if name in asked or name in needed]
