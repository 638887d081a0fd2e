"""The test scores of a run in one line."""

from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.reading_predictions import read_predictions
from bayes_share.evaluation.scores import score
from bayes_share.io.numbers import shown_number
from bayes_share.reports.number_results import COVERAGE, NumberResult
from bayes_share.runs.run_folder import RunFolder


def score_line(folder: RunFolder) -> str:
    """Format the test scores of a finished run in one line.

    Raises:
        InputError: if the predictions are damaged.
    """
    test = read_predictions(folder.predictions("test"))
    if not isinstance(test, NumberPredictions):
        found = score(test)
        return (
            f"test scores: accuracy {found.accuracy:.1%}, NLL {found.nll:.4f}, Brier {found.brier:.4f}, "
            f"ECE {found.ece:.4f}"
        )
    means = {name: values.mean().item() for name, values in NumberResult("", test).terms.items()}
    width = shown_number(means["width"], ".4g")
    parts = [
        f"NLL {means['nll']:.4g}",
        *([f"RMSE {shown_number(means['squared_error'] ** 0.5, '.4g')}"] if "squared_error" in means else []),
        f"MAE {shown_number(means['absolute_error'], '.4g')}",
        f"CRPS {shown_number(means['crps'], '.4g')}",
        f"{means['coverage']:.1%} of the targets in {COVERAGE:.0%} intervals of mean width {width}",
    ]
    return f"test scores: {', '.join(parts)}"
