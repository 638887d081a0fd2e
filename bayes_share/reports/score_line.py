"""The scores of a run in one line."""

from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.reading_predictions import read_predictions
from bayes_share.evaluation.scores import score
from bayes_share.reports.number_results import COVERAGE, NumberResult
from bayes_share.runs.run_folder import RunFolder


def score_line(folder: RunFolder) -> str:
    """What a finished run came to on its test examples.

    Raises:
        InputError: damaged predictions.
    """
    test = read_predictions(folder.predictions("test"))
    if not isinstance(test, NumberPredictions):
        found = score(test)
        return (
            f"test scores: accuracy {found.accuracy:.1%}, NLL {found.nll:.4f}, Brier {found.brier:.4f}, "
            f"ECE {found.ece:.4f}"
        )
    means = {name: values.mean().item() for name, values in NumberResult("", test).terms.items()}
    parts = [
        f"NLL {means['nll']:.4g}",
        *([f"RMSE {_short(means['squared_error'] ** 0.5)}"] if "squared_error" in means else []),
        f"MAE {_short(means['absolute_error'])}",
        f"CRPS {_short(means['crps'])}",
        f"{means['coverage']:.1%} in intervals of {COVERAGE:.0%}, {_short(means['width'])} wide",
    ]
    return f"test scores: {', '.join(parts)}"


def _short(value: float) -> str:
    """Four digits, or all before the point where it has more."""
    return f"{value:,.0f}" if 1e4 <= value < 1e9 else f"{value:.4g}"
