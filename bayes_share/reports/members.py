"""The section on the members of ensembles: their individual scores, and how much they differ."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayes_share.evaluation.diversity import Diversity, diversity
from bayes_share.evaluation.forest_plot import forest_drawing
from bayes_share.evaluation.scores import score
from bayes_share.inference.loop.near_copies import Remedies, has_signs, judged_line, near_copies
from bayes_share.layers.factored import is_further
from bayes_share.models.pairs import mean_of_pairs
from bayes_share.reports.document import Block, Cell, Column, Figure, Panel, Section, Table
from bayes_share.reports.results import Result
from bayes_share.runs.config_file import read_run_config
from bayes_share.runs.validation_images import scored_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

_HEALTH = (
    Column("run", "run"),
    Column("what", "compared"),
    Column("count", "number", ","),
    Column(
        "effective",
        "effective number",
        ".2f",
        better="higher",
        about="effective number of different members: 1 if all are equal, the number of members if no two agree",
    ),
    Column(
        "disagreement",
        "disagreement [%]",
        ".2f",
        100,
        about="examples on which two members predict different classes, averaged over pairs",
    ),
    Column(
        "of_deep",
        "relative to the deep ensemble [%]",
        ".0f",
        100,
        about="disagreement relative to that of the deep ensemble among the runs",
    ),
    Column("kl", "KL [nat]", ".4f", about="between two members, averaged over pairs and examples"),
    Column("lowest", "lowest accuracy [%]", ".2f", 100, "higher", "accuracy of the least accurate member"),
    Column("highest", "highest accuracy [%]", ".2f", 100, "higher", "accuracy of the most accurate member"),
    Column("together", "ensemble accuracy [%]", ".2f", 100, "higher", "accuracy of the averaged probabilities"),
)

_SPREAD = (
    Column("run", "run"),
    Column("factor", "factor"),
    Column("mean", "mean", ".3f"),
    Column("negative", "negative [%]", ".1f", 100),
    Column(
        "members",
        "between members",
        ".4f",
        about="standard deviation over members of the mean over draws, for each channel",
    ),
    Column("draws", "between draws", ".4f", about="standard deviation over the draws of a member"),
)


def members(runs: Sequence[Result]) -> Section | None:
    """Compare the members of each run, or the draws of a run with one member. Return None if no run has several."""
    several = [run for run in runs if run.test.logits.shape[:2].numel() > 1]
    if not several:
        return None
    found = [diversity(run.test) for run in several]
    warnings = [_repetition(run, one) for run, one in zip(several, found, strict=True) if one.identical]
    near = [f"{run.name}: {said}." for run in several if (said := _near_copies(run)) is not None]
    lead = [
        "Averaging predictions helps only if they differ.",
        *(warnings or ([] if near else ["No two members or draws are identical."])),
        *near,
    ]
    note = (
        "The prediction of a member is the mean over its draws. For a run with one member, draws are compared, at most "
        "16 of them."
    )
    apart = ((run, one) for run, one in zip(several, found, strict=True) if run.run and run.run.is_of_networks_apart)
    deep, measure = next(apart, (None, None))
    if deep is not None:
        note += f" The deep ensemble is {deep.name}, whose members share no weights."
    columns = [column for column in _HEALTH if measure is not None or column.key != "of_deep"]
    rows = [_row(run, one, measure) for run, one in zip(several, found, strict=True)]
    health = Table("members", "Diversity", columns, rows, note)
    each = [_each(run, one) for run, one in zip(several, found, strict=True) if one.axis == "member"]
    blocks: list[Block] = [health, *each, *_factors(several)]
    return Section("members", "Member diagnostics", lead, blocks)


def _repetition(run: Result, found: Diversity) -> str:
    """Return a sentence on members or draws with bitwise equal logits."""
    repeated = sorted({later for _, later in found.identical})
    count = len(found.accuracy)
    differ = f"{run.name}: only {count - len(repeated)} of {count} {found.axis}s have distinct logits"
    if run.run is None:
        return f"{differ}."
    if found.axis == "draw":
        return (
            f"{differ}: a point estimate has one draw, a chain has the draws that it kept, and a chain that "
            "does not move has one distinct draw."
        )
    return f"{differ}; {', '.join(map(str, repeated))} are exact copies of others, which indicates an error."


def _near_copies(run: Result) -> str | None:
    """Repeat the warning of near copies from the end of training.

    Return None if there is none, for draws, for deep ensembles and for predictions without a run.
    """
    known = run.run
    if known is None or run.validation is None or known.config["algorithm"] == "deep-ensemble":
        return None
    config = read_run_config(known.folder.config)
    if config.ensemble_size == 1:
        return None
    signs = "fixed_sign" in (config.init or "") or has_signs(_first_terms(run).values())
    has_factors = config.ensemble_kind == "factors"
    left = Remedies(
        signs=has_factors and config.factor_form == "multiplied" and not signs,
        data=known.config.get("feed") not in ("own", "bootstrap"),
        weights=has_factors and "fixed_sign" not in (config.init or "") and not config.own,
    )
    examples = len(scored_images(config, len(run.validation.labels)))
    return near_copies(judged_line(known.history, config.patience is not None), examples, config.ensemble_size, left)


def _row(run: Result, found: Diversity, measure: Diversity | None) -> dict[str, Cell]:
    disagreement = mean_of_pairs(found.disagreement)
    whole = None if measure is None or found.axis == "draw" else mean_of_pairs(measure.disagreement)
    values = {
        "count": len(found.accuracy),
        "effective": found.effective,
        "disagreement": disagreement,
        "of_deep": disagreement / whole if whole else None,
        "kl": mean_of_pairs(found.kl),
        "lowest": found.accuracy.min().item(),
        "highest": found.accuracy.max().item(),
        "together": score(run.test).accuracy,
    }
    return {
        "run": Cell(run.name),
        "what": Cell(f"{found.axis}s"),
        **{key: Cell(value) for key, value in values.items()},
    }


def _each(run: Result, found: Diversity) -> Table:
    columns = (
        Column("member", "member"),
        Column("accuracy", "accuracy [%]", ".2f", 100, "higher"),
        Column("nll", "NLL [nat]", ".4f", better="lower"),
        Column("disagreement", "disagrees with the others [%]", ".2f", 100),
    )
    others = found.disagreement.sum(1) / (len(found.accuracy) - 1)
    values = zip(found.accuracy.tolist(), found.nll.tolist(), others.tolist(), strict=True)
    rows = [
        {"member": Cell(f"{i}"), "accuracy": Cell(accuracy), "nll": Cell(nll), "disagreement": Cell(share)}
        for i, (accuracy, nll, share) in enumerate(values)
    ]
    return Table(f"members-{run.name}", f"{run.name}: each member", columns, rows)


def _factors(runs: Sequence[Result]) -> list[Block]:
    """Make a table of the spread of the rank-1 factors, and forest plots; an empty list if there are no factors."""
    factored = [run for run in runs if _first_terms(run)]
    if not factored:
        return []
    rows = []
    for run in factored:
        for kind in ("r", "s"):
            found = [values.double() for name, values in _first_terms(run).items() if name.endswith(kind)]
            if not found:  # layers scaled by a single number have no r
                continue
            num_draws, num_members = found[0].shape[:2]
            every = torch.cat([values.flatten() for values in found])
            members = [values.mean(0).std(0) for values in found] if num_members > 1 else None
            draws = [values.std(0).mean(0) for values in found] if num_draws > 1 else None
            values = {
                "mean": every.mean().item(),
                "negative": (every < 0).double().mean().item(),
                "members": None if members is None else torch.cat(members).mean().item(),
                "draws": None if draws is None else torch.cat(draws).mean().item(),
            }
            rows.append({"run": Cell(run.name), "factor": Cell(kind), **{k: Cell(v) for k, v in values.items()}})
    spread = Table("factors", "Spread of the rank-1 factors", _SPREAD, rows, "Averages over all layers and channels.")
    panels = [
        Panel(f"factors-{run.name}-{name}", f"Rank-1 factors {name} of {run.name} by channel and member", drawing)
        for run in factored
        for name, drawing in _forests(run)
    ]
    caption = (
        "Factors of the first layer, and r of the last layer, by channel, with a colour for each member. If "
        "factors are sampled, the thin line covers 94 % of the draws and the thick line 50 %."
    )
    return [spread, Figure("Rank-1 factors", panels, caption)]


def _first_terms(run: Result) -> dict[str, Tensor]:
    """Return the factors r and s of the first term, by name. The factors of further terms start around 0."""
    factors = {} if run.run is None else run.run.factors
    return {name: values for name, values in factors.items() if not is_further(name.rpartition(".")[2])}


def _forests(run: Result) -> Iterator[tuple[str, Callable[[bool], "Drawing"]]]:
    factors = _first_terms(run)
    names = list(factors)
    last = [name for name in names if name.endswith("r")][-1:]
    for name in dict.fromkeys([*names[:2], *last]):
        yield name, partial(_draw_forest, f"{run.name}: {name}", factors[name])


def _draw_forest(title: str, values: Tensor, with_legend: bool) -> "Drawing":
    return forest_drawing({title: values}, num_channels=8)
