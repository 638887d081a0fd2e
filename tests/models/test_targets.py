"""Validation of targets before the first step: lossless casts, and one-line messages for invalid targets."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bayes_share.data import load_data
from bayes_share.errors import InputError
from bayes_share.inference import MAP, DeepEnsemble, Inference, Training, batches_of, fit_tensors, predict
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model

pytestmark = pytest.mark.usefixtures("unchecked")

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 1, 0, 1, 0, 0, 1])


def trained(likelihood: Likelihood, y: Any, outputs: int, x: Any = X, algorithm: Inference[Any] = MAP()) -> Any:  # noqa: B008 (frozen)
    def build() -> Model:
        torch.manual_seed(0)
        return Model(nn.Linear(6, outputs), likelihood)

    return fit_tensors(algorithm, build, x, y, 3)


LOSSLESS = {
    "int32": CLASSES.int(),
    "uint8": CLASSES.to(torch.uint8),
    "bool": CLASSES.bool(),
    "float": CLASSES.float(),
    "float64": CLASSES.double(),
    "column": CLASSES[:, None],
    "column of floats": CLASSES[:, None].float(),
}


@pytest.mark.parametrize("y", LOSSLESS.values(), ids=LOSSLESS)
@pytest.mark.parametrize(("likelihood", "outputs"), [(Categorical(), 2), (Bernoulli(), 1), (Gaussian(), 1)])
def test_targets_of_other_dtypes_train_like_int64_classes(likelihood: Likelihood, outputs: int, y: Tensor) -> None:
    expected, found = trained(likelihood, CLASSES, outputs), trained(likelihood, y, outputs)
    for one, other in zip(found.model.parameters(), expected.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


REFUSED: dict[str, tuple[Likelihood, Any, int, str]] = {
    "Bernoulli, -1 and 1": (Bernoulli(), 2 * CLASSES - 1, 1, "from 0 to 1, and 4 of 8 are not, such as -1"),
    "Bernoulli, 2": (Bernoulli(), 2 * CLASSES, 1, "such as 2: binary labels are 0 or 1"),
    "Bernoulli, a probability": (Bernoulli(), 0.3 * CLASSES, 1, "must be integers, and one is 0.3"),
    "classes from 1": (Categorical(), CLASSES + 1, 2, "such as 2: the network has 2 outputs, one per class"),
    "classes -1 and 1": (Categorical(), 2 * CLASSES - 1, 2, "such as -1: .*ignore_index="),
    "-100": (Categorical(), torch.where(CLASSES == 1, -100, 0), 2, "such as -100: .*ignore_index="),
    "another ignore_index": (Categorical(ignore_index=-1), torch.where(CLASSES == 1, -100, 0), 2, "such as -100"),
    "all ignored": (Categorical(ignore_index=-1), torch.full((8,), -1), 2, "every target is the ignore_index -1"),
    "fractions": (Categorical(), CLASSES / 2, 2, "must be integers, and one is 0.5"),
    "too many columns": (Categorical(), torch.zeros(8, 3).long(), 2, r"have shape \[3\], and must have shape \[\]"),
    "NaN": (Gaussian(), CLASSES.float().log(), 1, "4 of 8 targets contain NaN or infinity, the first at index 0"),
    "complex": (Gaussian(), CLASSES + 1j, 1, "must be real numbers, and are complex"),
    "one label of two": (Bernoulli(), CLASSES, 2, r"have shape \[\], and must have shape \[2\]"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_targets_raise_a_one_line_message(case: str) -> None:
    likelihood, y, outputs, message = REFUSED[case]
    for algorithm in (MAP(), DeepEnsemble(networks=2)):
        with pytest.raises(InputError, match=message) as caught:
            trained(likelihood, y, outputs, algorithm=algorithm)
        assert "\n" not in str(caught.value)


def test_inputs_with_nan_raise() -> None:
    x = X.clone()
    x[3, 1] = math.nan
    with pytest.raises(InputError, match="1 of 8 inputs contain NaN or infinity, the first at index 3"):
        trained(Categorical(), CLASSES, 2, x=x)


def test_targets_are_ignored_only_with_ignore_index() -> None:
    outputs = torch.zeros(1, 2, 3)
    with pytest.raises(InputError, match="targets from -100 to 1 do not match a network with 3 outputs"):
        Categorical().log_lik(outputs, torch.tensor([[-100, 1]]))
    found = Categorical(ignore_index=-100).log_lik(outputs, torch.tensor([[-100, 1]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -math.log(3)]]))


@pytest.mark.parametrize("class_axis", [-1, 1, 2, -2])
@pytest.mark.parametrize("ignore_index", [None, -100, 1])
def test_log_lik_is_summed_over_positions(class_axis: int, ignore_index: int | None) -> None:
    source = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, 3, 6, generator=source, dtype=torch.float64)  # member, example, two positions, class
    labels = torch.randint(6, (2, 5, 4, 3), generator=source)
    if ignore_index == -100:
        labels[:, :, 0] = -100
    likelihood = Categorical(class_axis, ignore_index)
    outputs = logits.movedim(-1, class_axis + 1 if class_axis > 0 else class_axis)
    log_probs = logits.log_softmax(-1)
    expected, right, known = torch.zeros(3, 2, 5, dtype=torch.float64)
    for member in range(2):
        for example in range(5):
            for place in torch.cartesian_prod(torch.arange(4), torch.arange(3)).tolist():
                label = int(labels[member, example, place[0], place[1]])
                if label != ignore_index:
                    at = log_probs[member, example, place[0], place[1]]
                    expected[member, example] += at[label]
                    right[member, example] += float(at.argmax() == label)
                    known[member, example] += 1
    torch.testing.assert_close(likelihood.log_lik(outputs, labels), expected)
    torch.testing.assert_close(likelihood.correct(outputs, labels).double(), right / known, rtol=1e-6, atol=0.0)
    distribution = likelihood.distribution(outputs)
    assert distribution.batch_shape == (2, 5)
    torch.testing.assert_close(distribution.log_prob(labels), expected)


def test_log_lik_is_summed_over_labels() -> None:
    outputs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    labels = (outputs > 0.2).long()
    log_lik = Bernoulli().log_lik(outputs, labels)
    expected = sum(Bernoulli().log_lik(outputs[..., i], labels[..., i]) for i in range(3))
    torch.testing.assert_close(log_lik, expected)
    torch.testing.assert_close(Bernoulli().distribution(outputs).log_prob(labels.float()), log_lik)


def test_invalid_class_axes_and_ignore_indices_raise() -> None:
    with pytest.raises(InputError, match="class_axis 0 is the batch axis"):
        Categorical(class_axis=0)
    with pytest.raises(InputError, match="class_axis must be an integer, not '1'"):
        Categorical(class_axis="1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"ignore_index must be an integer, not 1\.5"):
        Categorical(ignore_index=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"class_axis=2 is out of range: the outputs have shape \[batch, 3\]"):
        Categorical(class_axis=2).log_lik(torch.zeros(1, 2, 3), torch.zeros(1, 2).long())
    with pytest.raises(InputError, match="use class_axis=1 if classes are on the axis after the batch"):
        Categorical().prepare(torch.zeros(2, 5).long(), torch.zeros(1, 2, 3, 5))


def test_fit_scores_a_binary_network_as_two_classes() -> None:
    data = load_data("digits", hold_out=tuple(range(2, 10)))
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    run = Training(MAP(learning_rate=0.1), lambda: Model(net, Bernoulli()), batches_of(data, 16), 8)
    list(run.steps())
    logits = predict(MAP(), run.state, data.normalise(data.validation.images)).double().flatten()
    labels = data.validation.labels.double()
    loss = nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert run.history[-1]["validation_nll"] == pytest.approx(float(loss), rel=1e-5)
    assert run.history[-1]["validation_accuracy"] == float(((logits > 0) == labels.bool()).double().mean()) > 0.9
