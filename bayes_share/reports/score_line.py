"""The scores of a run in one line."""

from bayes_share.evaluation.number_predictions import NumberPredictions
from bayes_share.evaluation.reading_predictions import read_predictions
from bayes_share.evaluation.scores import score
from bayes_share.reports.number_results import COVERAGE, NumberResult
from bayes_share.run_folder import RunFolder


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
        *([f"RMSE {means['squared_error'] ** 0.5:.4g}"] if "squared_error" in means else []),
        f"MAE {means['absolute_error']:.4g}",
        f"CRPS {means['crps']:.4g}",
        f"{means['coverage']:.1%} in intervals of {COVERAGE:.0%}, {means['width']:.4g} wide",
    ]
    return f"test scores: {', '.join(parts)}"
