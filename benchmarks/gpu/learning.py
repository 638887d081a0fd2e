"""The time until networks have learned a data set."""

from collections.abc import Iterator
from functools import partial

from bayes_share.data import Data, load_data
from bayes_share.inference import MAP, DeepEnsemble, Execution, Training, batches_of
from bayes_share.models.model import Model
from bayes_share.models.networks import build_network
from benchmarks.gpu.rows import Cells, Row
from benchmarks.gpu.setting import Setting

LEVELS = (0.92, 0.93, 0.94)
"""The validation accuracies."""


def learning(setting: Setting) -> Iterator[Row]:
    """Time the training of one network and of a deep ensemble of four. Without data, there are no rows."""
    if setting.data is None:
        return
    data = load_data(setting.data, augment=setting.augment)
    for name, networks, seconds in (("one network", 1, 120.0), ("deep ensemble", 4, 400.0)):
        key = {"data": setting.data, "augment": data.augment, "trained": name, "networks": networks}
        yield Row(key, partial(_learning, setting, data, networks), 5.0 if setting.is_quick else seconds)


def _learning(setting: Setting, data: Data, networks: int) -> Cells:
    model, epochs = ("resnet8_4", 1) if setting.is_quick else ("resnet18", 30)

    def build() -> Model:
        return Model(
            build_network(model, num_classes=data.num_classes, in_channels=data.in_channels, image_size=data.image_size)
        )

    one = MAP(learning_rate=0.1, weight_decay=5e-4, schedule="cosine")
    algorithm = one if networks == 1 else DeepEnsemble(one, networks)
    execution = Execution(setting.device, "bfloat16", channels_last=True, capture="on")  # type: ignore[arg-type]
    training = Training(algorithm, build, batches_of(data, 128), epochs=epochs, execution=execution)
    for _ in training.steps():
        pass
    history = training.history
    reached = {
        f"s to {level:.0%}": next((line["seconds"] for line in history if line["validation_accuracy"] >= level), None)
        for level in LEVELS
    }
    last = history[-1]
    found = {"model": model, "epochs": epochs, **reached, "s in all": last["seconds"]}
    return found | {"validation accuracy": f"{last['validation_accuracy']:.2%}"}
