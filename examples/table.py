"""Train a BatchEnsemble with predicted noise on scikit-learn's diabetes data as a CSV file, and write a report.

    python examples/table.py

Writes diabetes.csv and diabetes.html into a temporary folder and prints the path of the report.
"""

import tempfile
from pathlib import Path

import torch
from sklearn.datasets import load_diabetes
from torch import nn

from bayes_share import (
    MAP,
    Gaussian,
    Model,
    NumberPredictions,
    ensemble,
    evaluate,
    fit_tensors,
    load_table,
    predict_arguments,
    report,
)
from bayes_share.data.tables.load import TablePart
from bayes_share.evaluation.numbers import number_scores


def main() -> None:
    """Train, write the report, and check the RMSE."""
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    load_diabetes(as_frame=True, scaled=False).frame.to_csv(folder / "diabetes.csv", index=False)
    data = load_table(folder / "diabetes.csv", target="target", likelihood="normal")

    network = nn.Sequential(nn.Linear(data.train.inputs.shape[1], 64), nn.ReLU(), nn.Linear(64, 2))
    likelihood = Gaussian("predicted", beta=0.5).with_units(data.encoder.target.units)
    model = Model(ensemble(network, 8, init="random_sign"), likelihood)
    algorithm = MAP(optimizer="adamw", learning_rate=3e-3)
    state = fit_tensors(algorithm, model, data.train.inputs, data.train.targets, num_steps=200, batch_size=64)

    def predicted(part: TablePart) -> NumberPredictions:
        """Return the predictive distribution of each row, in the units of the target."""
        _, arguments = predict_arguments(algorithm, state, part.inputs)
        return NumberPredictions(arguments, part.targets, likelihood, part.names)

    test, validation = predicted(data.test), predicted(data.validation)
    print(evaluate({"BatchEnsemble of 8": test}))
    page = report({"BatchEnsemble of 8": test}, folder / "diabetes.html", validation={"BatchEnsemble of 8": validation})
    print(f"report: {page}")
    rmse, spread = number_scores(test.predictive, test.targets)["rmse"].value, test.targets.std().item()
    if not rmse < 0.85 * spread:
        raise SystemExit(f"the RMSE {rmse:.1f} should be well below the targets' standard deviation {spread:.1f}")


if __name__ == "__main__":
    main()
