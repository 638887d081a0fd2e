"""Convert a trained network to an ensemble, fine-tune it, fold a member, and export that to ONNX.

    python -m benchmarks.finetune RUN --epochs 2 --out finetune.json

RUN is a finished run of `bayes-share fit map` with a single network. The network is converted with factors of one plus
noise and fine-tuned as an ensemble, and one member is folded and exported. Accuracy and NLL on the test set are
reported at each stage. For comparison, the single network is fine-tuned for as many steps.
"""

import argparse
import json
import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from bayes_share import MAP, FactorInit, Model, ensemble, fold, ledger, load_run
from bayes_share.evaluation import Predictions, format_table, score
from bayes_share.inference import Training, batches_of
from bayes_share.sharing import Start


def main() -> None:
    """Print a table of the stages, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run of a single network")
    parser.add_argument("--ensemble-size", type=int, default=4)
    parser.add_argument("--sd", type=float, default=None, help='sd of the factors\' noise (default: init="keep")')
    parser.add_argument("--epochs", type=int, default=2, help="epochs of fine-tuning (default: 2)")
    parser.add_argument("--learning-rate", type=float, default=0.01, help="learning rate (default: 0.01)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file of the table")
    arguments = parser.parse_args()

    trained = load_run(arguments.run)
    data, execution = trained.data, trained.execution
    net: nn.Module = trained.state.model.network
    example = data.normalise(data.validation.images[:2])
    torch.manual_seed(arguments.seed)
    start: Start | FactorInit = "keep" if arguments.sd is None else FactorInit("normal", sd=arguments.sd)
    converted = ensemble(net, arguments.ensemble_size, start, example=example)
    print(converted.summary())
    print(ledger(converted, example))

    algorithm = MAP(learning_rate=arguments.learning_rate)

    def training(network: nn.Module) -> Training:
        return Training(
            algorithm,
            lambda: Model(deepcopy(network)),
            batches_of(data, trained.source.batch_size),
            arguments.epochs,
            arguments.seed,
            execution,
        )

    rows = []

    def stage(name: str, logits: Tensor) -> None:
        scores = score(Predictions(logits, data.test.labels.cpu()))
        rows.append({"stage": name, "accuracy": scores.accuracy, "nll": scores.nll, "ece": scores.ece})
        print(format_table(list(rows[0]), rows), flush=True)
        if arguments.out is not None:
            arguments.out.write_text(json.dumps({"arguments": vars(arguments) | {"out": None}, "rows": rows}, indent=2))

    stage("the trained network", trained.predict(data.test))
    stage("converted: ones plus noise", training(converted).predict(data.test))
    for name, network in (("fine-tuned alone, as many steps", net), ("fine-tuned as an ensemble", converted)):
        tuned = training(network)
        for _ in tuned.steps():
            pass
        stage(name, tuned.predict(data.test))
    plain = fold(tuned.state.model.network.cpu(), member=0).eval()
    stage("member 0, in the ensemble", tuned.predict(data.test)[:, :1])
    images = data.normalise(data.test.images).cpu()
    with torch.no_grad():
        stage("member 0, folded, in float32", torch.cat([plain(part) for part in images.split(500)])[None, None])
    stage("member 0, folded, by onnxruntime", _by_onnx(plain, images)[None, None])


def _by_onnx(plain: nn.Module, images: Tensor) -> Tensor:
    plain = plain.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "member.onnx"
        torch.onnx.export(plain, (images[:500],), str(path), input_names=["x"], dynamo=False)
        session = onnxruntime.InferenceSession(str(path))
        parts = [session.run(None, {"x": part.contiguous().numpy()})[0] for part in images.split(500)]
    return torch.from_numpy(np.concatenate(parts))


if __name__ == "__main__":
    main()
