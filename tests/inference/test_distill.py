"""Distillation: its loss against an explicit formula, its perturbation against finite differences, its teachers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from algorithms import builder, digits
from states import differences, through_bytes
from torch import Tensor, nn

from bayes_share.errors import InputError
from bayes_share.inference import (
    IVON,
    MAP,
    NUTS,
    SGHMC,
    SVI,
    SWAG,
    DeepEnsemble,
    Distill,
    Inference,
    LastLayerLaplace,
    MCDropout,
    Training,
    batches_of,
    fit,
    fit_tensors,
    predict,
)
from bayes_share.inference.algorithm import Batch
from bayes_share.inference.methods.distill.objective import Distillation
from bayes_share.inference.methods.distill.perturbation import Pixels
from bayes_share.inference.methods.distill.teachers import Teachers, teachers_of
from bayes_share.inference.step.objective import NegativeLogLikelihood
from bayes_share.models.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from bayes_share.models.model import Model
from bayes_share.sharing import ensemble
from bayes_share.sharing.fold import fold
from bayes_share.sharing.members_interface import Feed
from bayes_share.tensors.seeding import seeded

CHANNELS, SIZE, CLASSES = 3, 4, 5
TEMPERATURE, ALPHA, STEP = 3.0, 0.7, 1 / 255


def net(outputs: int = CLASSES, scale: float = 3.0) -> nn.Sequential:
    """Return an MLP without norms, whose outputs differ clearly between inputs."""
    made = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * SIZE**2, 16), nn.Tanh(), nn.Linear(16, outputs)).double()
    with torch.no_grad():
        made[-1].weight.mul_(scale)
    return made


MEAN, STD = torch.tensor([[0.4, 0.5, 0.6], [0.2, 0.25, 0.4]]).double()
"""The mean and standard deviation of each channel, in units of pixels."""


def normalised(p: Tensor) -> Tensor:
    return (p - MEAN[:, None, None]) / STD[:, None, None]


def distillation(teachers: Teachers, alpha: float = ALPHA, perturbation: Any = "confident_ods") -> Distillation:
    return Distillation(teachers.double(), Pixels(MEAN, STD), alpha, TEMPERATURE, perturbation, STEP)


def images(count: int) -> Tensor:
    return normalised(torch.rand(count, CHANNELS, SIZE, SIZE).double())


# The objective


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("perturbation", ["none", "ods", "confident_ods"])
@pytest.mark.parametrize(
    ("likelihood", "outputs"), [(Categorical(), CLASSES), (Bernoulli(), 2), (Gaussian(0.3, learned=True), 2)]
)
@pytest.mark.parametrize("feed", ["tile", "split"])
def test_a_student_equal_to_its_teacher_has_zero_loss_and_gradients(
    members: int, perturbation: str, likelihood: Likelihood, outputs: int, feed: Feed
) -> None:
    network = net(outputs)
    model = Model(network if members == 1 else ensemble(network, members, "normal"), likelihood.double()).eval()
    y = torch.randint(2, (6, outputs)).double() if outputs == 2 else torch.randint(CLASSES, (6,))
    objective = distillation(teachers_of(model), 1.0, perturbation)
    terms = objective.terms(lambda x: (model(x, feed), model.likelihood), model, Batch(images(6), y), feed)
    gradients = torch.autograd.grad(terms.loss, list(model.parameters()))
    assert abs(terms.loss.item()) < 1e-12
    assert max(float(gradient.abs().max()) for gradient in gradients) < 1e-12


def explicit_loss(
    model: Model, teachers: list[nn.Module], clean: Tensor, moved: Tensor, y: Tensor, weights: Tensor, taught: Any
) -> Tensor:
    """Return the loss, summed over examples. ``taught[m]`` lists the rows of member m, each with its teachers."""
    total, of_all = torch.zeros(()).double(), torch.zeros(()).double()
    for member, of_member in enumerate(taught):
        for row, own in of_member:
            logits, labels = model(clean[row : row + 1])[member, 0], y[row]
            cross_entropy = -logits.log_softmax(0)[labels]
            q = (model(moved[row : row + 1])[member, 0] / TEMPERATURE).softmax(0)
            each = []
            for number in own:
                p = (teachers[number](moved[row : row + 1])[0] / TEMPERATURE).softmax(0)
                each.append((p * (p / q).log()).sum())
            divergence = sum(each) / len(each)
            loss = (1 - ALPHA) * cross_entropy + ALPHA * TEMPERATURE**2 * divergence
            total = total + weights[row] * loss
            of_all = of_all + weights[row]
    return total / of_all


ROWS = 8
PLANS: dict[str, tuple[int, int, Feed, Any]] = {
    "3 members, 2 teachers": (3, 2, "tile", [[(row, [teacher]) for row in range(ROWS)] for teacher in (0, 1, 0)]),
    "1 member, 3 teachers": (1, 3, "tile", [[(row, [0, 1, 2]) for row in range(ROWS)]]),
    "2 members, 4 teachers": (
        2,
        4,
        "tile",
        [[(row, [m if row < 4 else m + 2]) for row in range(ROWS)] for m in (0, 1)],
    ),
    "2 members, 3 teachers": (
        2,
        3,
        "tile",
        [list(enumerate([t] for t in own)) for own in ((0, 0, 2, 2, 2, 1, 1, 1), (1, 1, 0, 0, 0, 2, 2, 2))],
    ),
    "2 members, 2 teachers, split": (2, 2, "split", [[(row + 4 * m, [m]) for row in range(4)] for m in (0, 1)]),
    "2 members, 4 teachers, split": (
        2,
        4,
        "split",
        [[(row + 4 * m, [m if row < 2 else m + 2]) for row in range(4)] for m in (0, 1)],
    ),
}


@pytest.mark.parametrize(("members", "count", "feed", "taught"), PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("perturbation", ["none", "confident_ods"])
def test_the_loss_equals_the_explicit_formula(
    members: int, count: int, feed: Feed, taught: Any, perturbation: str
) -> None:
    teachers: list[nn.Module] = [net() for _ in range(count)]
    model = Model(net() if members == 1 else ensemble(net(), members, "random_sign"))
    x, y, weights = images(ROWS), torch.randint(CLASSES, (ROWS,)), torch.rand(ROWS).double()
    objective = distillation(teachers_of(teachers), perturbation=perturbation)
    with seeded("u"):
        terms = objective.terms(lambda x: (model(x, feed), model.likelihood), model, Batch(x, y, weights), feed)
    with seeded("u"):
        moved = x if perturbation == "none" else objective.perturbed(x, model.likelihood)
    expected = explicit_loss(model, teachers, x, moved, y, weights, taught)
    torch.testing.assert_close(terms.loss, expected, rtol=1e-12, atol=0)
    usual = NegativeLogLikelihood().terms(
        lambda x: (model(x, feed), model.likelihood), model, Batch(x, y, weights), feed
    )
    assert torch.equal(terms.log_lik, usual.log_lik)


def test_the_gradient_of_one_network_is_that_of_the_mixture_of_teachers() -> None:
    teachers, model, x = [net() for _ in range(3)], Model(net()), images(6)
    objective = distillation(teachers_of(teachers), 1.0, "none")
    loss = objective.terms(lambda x: (model(x), model.likelihood), model, Batch(x, torch.zeros(6).long()), "tile").loss
    mixture = torch.stack([(teacher(x) / TEMPERATURE).softmax(1) for teacher in teachers]).mean(0).detach()
    divergence = TEMPERATURE**2 * (mixture * (mixture.log() - (model(x)[0] / TEMPERATURE).log_softmax(1))).sum(1).mean()
    parameters = list(model.parameters())
    found, expected = (torch.autograd.grad(each, parameters) for each in (loss, divergence))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_positions_with_ignored_targets_do_not_count() -> None:
    """A position whose target is `ignore_index` does not contribute to the divergence."""
    student, teacher = nn.Linear(4, 6).double(), nn.Linear(4, 6).double()
    network, other = (nn.Sequential(each, nn.Unflatten(1, (3, 2))) for each in (student, teacher))
    model = Model(network, Categorical(class_axis=1, ignore_index=-1))
    x, y = torch.randn(5, 4).double(), torch.tensor([[0, -1], [1, 2], [-1, -1], [2, 0], [1, -1]])
    objective = Distillation(teachers_of(other), None, 1.0, 1.0, "none", STEP)
    loss = objective.terms(lambda x: (model(x), model.likelihood), model, Batch(x, y), "tile").loss
    p, q = other(x).softmax(1), network(x).softmax(1)
    expected = (p * (p / q).log()).sum(1)[y >= 0].sum() / 5
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


def test_the_divergence_is_from_a_teacher_with_its_own_noise() -> None:
    """KL(N(t, 0.4²) ‖ N(s, 0.9²)); the noise of a network without a likelihood is taken to be the student's."""
    teacher, student, x = net(2), Model(net(2), Gaussian(0.9).double()), images(6)
    for given, noise in ((Model(teacher, Gaussian(0.4).double()), 0.4), (teacher, 0.9)):
        objective = Distillation(teachers_of(given).double(), None, 1.0, TEMPERATURE, "none", STEP)
        batch = Batch(x, torch.zeros(6, 2).double())
        loss = objective.terms(lambda x: (student(x), student.likelihood), student, batch, "tile").loss
        squares = noise**2 + (teacher(x) - student(x)[0]).square()
        expected = (math.log(0.9 / noise) + squares / (2 * 0.9**2) - 0.5).sum(1).mean()
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-9)


# The perturbation


def objective_of(teacher: nn.Module, u: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda p: (u * (teacher(normalised(p)) / TEMPERATURE).softmax(1)).sum()


@pytest.mark.parametrize("perturbation", ["ods", "confident_ods"])
def test_the_perturbation_follows_the_gradient_with_the_given_length(perturbation: str) -> None:
    """Compare with finite differences in pixels, for two teachers with half of the batch each, without clipping."""
    teachers = [net(), net()]
    p = 0.3 + 0.4 * torch.rand(6, CHANNELS, SIZE, SIZE).double()
    with seeded("u"):
        moved = distillation(teachers_of(teachers), perturbation=perturbation).perturbed(normalised(p), Categorical())
    with seeded("u"):
        u = [2 * torch.rand(3, CLASSES, dtype=torch.float64) - 1 for _ in teachers]
    step = (moved - normalised(p)) * STD[:, None, None]
    for number, teacher in enumerate(teachers):
        mine = p[3 * number : 3 * number + 3]
        value, gradient, small = objective_of(teacher, u[number]), torch.zeros_like(mine), 1e-6
        for place in range(mine[0].numel()):
            away = torch.zeros_like(mine).flatten(1)
            for row in range(3):  # one row at a time: rows are independent, but their values are summed
                away.zero_()
                away[row, place] = small
                change = value(mine + away.view_as(mine)) - value(mine - away.view_as(mine))
                gradient.flatten(1)[row, place] = change / (2 * small)
        found = step[3 * number : 3 * number + 3].flatten(1)
        direction = gradient.flatten(1) / gradient.flatten(1).norm(dim=1, keepdim=True)
        sure = (teacher(normalised(mine)) / TEMPERATURE).softmax(1).amax(1)
        length = (
            STEP * (CHANNELS * SIZE**2) ** 0.5 * (sure if perturbation == "confident_ods" else torch.ones(3).double())
        )
        torch.testing.assert_close(found.norm(dim=1), length, rtol=1e-10, atol=0)
        torch.testing.assert_close(found, direction * length[:, None], rtol=1e-5, atol=1e-8)


def test_perturbed_images_are_clipped_to_valid_pixels() -> None:
    """The result is the unclipped step, clipped to the range of pixels."""
    teachers, p = teachers_of(net()), torch.rand(40, CHANNELS, SIZE, SIZE).round().double()
    with seeded("u"):
        found = distillation(teachers).perturbed(normalised(p), Categorical())
    free = distillation(teachers)
    free.pixels.black.fill_(-torch.inf)  # type: ignore[union-attr]
    free.pixels.white.fill_(torch.inf)  # type: ignore[union-attr]
    with seeded("u"):
        unclipped = free.perturbed(normalised(p), Categorical())
    assert bool((unclipped < normalised(torch.zeros_like(p))).any())
    expected = torch.minimum(torch.maximum(unclipped, normalised(torch.zeros_like(p))), normalised(torch.ones_like(p)))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_a_constant_teacher_perturbs_nothing() -> None:
    teacher = net(scale=0.0)
    x = images(4)
    torch.testing.assert_close(distillation(teachers_of(teacher)).perturbed(x, Categorical()), x, rtol=0, atol=1e-15)


def test_a_confident_teacher_perturbs_by_the_full_step_length() -> None:
    """Its gradients are so small that their squares underflow."""
    teacher = net(scale=1.0).float()
    with torch.no_grad():
        teacher[-1].bias.copy_(torch.tensor([170.0, 0.0, 0.0, 0.0, 0.0]))
    x = torch.randn(4, CHANNELS, SIZE, SIZE)
    found = Distillation(teachers_of(teacher), None, ALPHA, 2.0, "ods", STEP).perturbed(x, Categorical()) - x
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.full((4,), STEP * 48**0.5), rtol=1e-3, atol=0)


class Reader(nn.Module):
    """A network with dict inputs: tokens, and optionally an amount of each."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.last = nn.Embedding(7, 6), nn.Linear(6, CLASSES)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        words: Tensor = self.embedding(x["words"])
        return self.last(words.mean(1) if "amounts" not in x else (words * x["amounts"][..., None]).mean(1))


@pytest.mark.parametrize("has_amounts", [False, True])
def test_integer_inputs_are_not_perturbed(has_amounts: bool) -> None:
    """Floating-point inputs in the same dict are perturbed in their own units."""
    x = {"words": torch.randint(7, (12, 3))} | ({"amounts": torch.rand(12, 3)} if has_amounts else {})
    y, seen = torch.randint(CLASSES, (12,)), []
    algorithm = Distill(of=MAP(learning_rate=0.01)).taught_by([Reader(), Reader()])
    with seeded("init"):
        state = algorithm.init(lambda: Model(Reader()), 12, 4)
    state.model.network.register_forward_hook(lambda module, args, outputs: seen.append(args[0]))
    algorithm.check(state, Batch(x, y))
    seen.clear()
    ((of, student),) = algorithm.trainings(state)
    of.gradient(student, Batch(x, y))  # type: ignore[attr-defined]
    assert len(seen) == 1 + has_amounts
    assert torch.equal(seen[-1]["words"], x["words"])
    if has_amounts:
        moved = (seen[-1]["amounts"] - x["amounts"]).norm(dim=1)
        assert bool((moved > 0).all())
        assert float(moved.max()) <= STEP * 3**0.5 * (1 + 1e-4)
    assert bool(torch.isfinite(fit_tensors(algorithm, Model(Reader()), x, y, 3).model.network.last.weight).all())


# Teachers


def mixed() -> nn.Module:
    """Return a network with batch norm and dropout, in training mode."""
    return builder(dropout=0.4, norm="batch", widths=(32,))().network.train()


def test_teachers_are_unchanged_and_not_part_of_the_students_state() -> None:
    teachers = [mixed(), ensemble(mixed(), 2, "normal")]
    before = [through_bytes(teacher.state_dict()) for teacher in teachers]
    algorithm = Distill().taught_by(teachers, digits())
    of_lesson = through_bytes(algorithm.lesson.teachers.state_dict())  # type: ignore[union-attr]
    training = Training(algorithm, builder(3), batches_of(digits(), 48), 2)
    ((of, _),) = algorithm.trainings(training.state)
    inside = of.objective.teachers  # type: ignore[attr-defined]
    was = through_bytes(inside.state_dict())
    for _ in training.steps():
        pass
    for teacher, numbers in zip(teachers, before, strict=True):
        assert differences(dict(teacher.state_dict()), numbers) == []
        assert teacher.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
    assert differences(dict(inside.state_dict()), was) == []
    assert differences(dict(algorithm.lesson.teachers.state_dict()), of_lesson) == []  # type: ignore[union-attr]
    assert not any(module.training for module in inside.modules())
    assert len(inside) == 3
    plain = Training(MAP(), builder(3), batches_of(digits(), 48), 2)
    assert training.state.num_parameters == plain.state.num_parameters
    assert training.state.state_dict()["model"].keys() == plain.state.state_dict()["model"].keys()


def outputs(teachers: Teachers, x: Tensor) -> Tensor:
    return torch.cat([teacher(x) for teacher in teachers]).detach()


def test_every_kind_of_teacher_gives_the_outputs_of_its_members() -> None:
    data = digits()
    x = data.normalise(data.test.images)
    deep = DeepEnsemble(networks=2)
    training = Training(deep, builder(3, norm="batch"), batches_of(data, 48), 1)
    for _ in training.steps():
        pass
    expected = predict(deep, training.state, x)[0]
    models = [state.model for state in training.state.networks]
    networks = [fold(model.network, member) for model in models for member in range(3)]
    for given in (training, (deep, training.state), models, [model.network for model in models], networks):
        torch.testing.assert_close(outputs(teachers_of(given), x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", [IVON(), SVI(), SWAG(num_snapshots=3), SGHMC()])
def test_each_posterior_draw_is_a_teacher(algorithm: Inference[Any]) -> None:
    data = digits()
    x = data.normalise(data.test.images)
    state = fit(algorithm, builder(2), data, 1, 48, progress=False)
    expected = predict(algorithm, state, x, 3).flatten(0, 1)
    torch.testing.assert_close(outputs(teachers_of((algorithm, state), 3), x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("algorithm", [MAP(), MCDropout()])
def test_a_point_estimate_gives_one_teacher_per_member(algorithm: Inference[Any]) -> None:
    state = fit(algorithm, builder(2), digits(), 1, 48, progress=False)
    x = digits().normalise(digits().test.images)
    found = outputs(teachers_of((algorithm, state), 3), x)
    torch.testing.assert_close(found, state.model.eval()(x).detach(), rtol=1e-4, atol=1e-4)


class Sure(nn.Module):
    """Returns one-hot outputs, which have no gradient with respect to the inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot(x.flatten(1)[:, :10].argmax(1), 10).to(x.dtype)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        (3, "the teacher: .* not a int"),
        ([], "not an empty list"),
        ([nn.Linear(2, 2), "deep"], "one of them is a str"),
        ((MAP(), nn.Linear(2, 2)), "requires the state that fit returns, not Linear"),
        ("no such run", "the teacher: no such run is not a run"),
        (Sure(), 'outputs have no gradient with respect to its inputs, .*: use perturbation="none"'),
        (nn.Linear(64, 10), "the teacher: it cannot be run on the inputs of the student"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 9)), r"have shape \[9\], and the student's have shape \[10\]"),
        (Model(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), Bernoulli()), "has the likelihood Bernoulli, and the"),
    ],
)
def test_an_invalid_teacher_is_refused_in_one_line(teacher: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        fit(Distill(), builder(), digits(), 1, 48, progress=False, teacher=teacher)
    assert "\n" not in str(caught.value)


def test_distill_requires_a_teacher_and_map_refuses_one() -> None:
    with pytest.raises(InputError, match="distillation requires a teacher"):
        fit(Distill(), builder(), digits(), 1, 48, progress=False)
    with pytest.raises(InputError, match="distillation requires a teacher"):
        next(Training(Distill(), builder(), batches_of(digits(), 48), 1).steps())
    with pytest.raises(InputError, match="only Distill supports a teacher, and the algorithm is MAP"):
        fit(MAP(), builder(), digits(), 1, 48, progress=False, teacher=mixed())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distill(of=DeepEnsemble()), "cannot run DeepEnsemble, which runs an algorithm itself"),
        (lambda: Distill(of=Distill()), "cannot run Distill, which runs an algorithm itself"),
        (lambda: Distill(of=SGHMC()), "cannot run SGHMC: a chain"),
        (lambda: Distill(of=NUTS()), "cannot run NUTS: a chain"),
        (
            lambda: Distill(of=MAP(objective=distillation(teachers_of(net())))),
            "leave the objective of MAP at its default",
        ),
        (lambda: Distill(alpha=1.1), "alpha must be from 0 to 1, and is 1.1"),
        (lambda: Distill(temperature=0.0), "temperature must be positive and finite, and is 0"),
        (lambda: Distill(step_size=-1.0), "step_size must be finite and not negative"),
        (lambda: Distill(teacher_draws=0), "teacher_draws must be from 1 to 10,000, and is 0"),
    ],
)
def test_invalid_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


# Trainings


@pytest.mark.parametrize("algorithm", [MAP(), IVON()])
def test_alpha_0_equals_the_inner_algorithm(algorithm: Inference[Any]) -> None:
    plain = fit(algorithm, builder(3), digits("crop"), 2, 48, progress=False)
    distilled = fit(
        Distill(of=algorithm, alpha=0.0), builder(3), digits("crop"), 2, 48, progress=False, teacher=mixed()
    )
    assert differences(plain.state_dict(), distilled.state_dict()) == []


@pytest.mark.parametrize(
    "of", [SVI(learning_rate=1e-2, kl_weight=1e-3), IVON(hess_init=5.0), SWAG(), MCDropout(), LastLayerLaplace()]
)
def test_other_algorithms_can_be_distilled_and_report_their_tempering(of: Inference[Any]) -> None:
    algorithm, data = Distill(of=of, alpha=0.5), digits()
    state = fit(algorithm, builder(2), data, 4, 48, progress=False, teacher=mixed())
    assert predict(algorithm, state, data.normalise(data.test.images), 2).shape == (2, 2, 50, 10)
    inner = of.tempering(240)
    assert algorithm.tempering(240) == "alpha of 0.5 of a distillation" + ("" if inner is None else f", and {inner}")
    assert Distill(of=of, alpha=0.0).tempering(240) == inner
    assert algorithm.not_drawn() == of.not_drawn()


def test_a_student_in_a_deep_ensemble_equals_one_trained_alone() -> None:
    algorithm = Distill().taught_by(mixed(), digits())
    deep = fit(DeepEnsemble(of=algorithm, networks=1), builder(2), digits(), 1, 48, progress=False)
    alone = fit(algorithm, builder(2), digits(), 1, 48, progress=False)
    assert differences(deep.networks[0].state_dict(), alone.state_dict()) == []


def test_with_alpha_1_a_student_learns_its_teachers_and_not_the_labels() -> None:
    data = digits()
    x = data.normalise(data.train.images)
    teacher = fit(MAP(), builder(), data, 10, 48, progress=False).model
    wrong = (x, (data.train.labels + 1) % 10)
    state = fit(Distill(of=MAP(), alpha=1.0), builder(), wrong, 20, 48, progress=False, teacher=teacher)
    agree = predict(MAP(), state.student, x)[0, 0].argmax(1) == teacher.eval()(x)[0].argmax(1)
    assert float(agree.float().mean()) > 0.95


def test_a_distillation_resumes_with_the_same_teacher_only(tmp_path: Path) -> None:
    teacher, other = builder()(), builder()()
    data, build = digits("crop"), builder(3)
    whole = fit(Distill(), build, data, 4, 48, progress=False, teacher=teacher)

    class Stop(Exception):
        pass

    def stop(line: Any) -> None:
        if line["epoch"] == 1:
            raise Stop

    keep = {"checkpoints": tmp_path / "kept", "progress": False, "checkpoint_minutes": 0.0}
    with pytest.raises(Stop):
        fit(Distill(), build, data, 4, 48, teacher=teacher, report=stop, **keep)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="differs in the teacher: give another folder"):
        fit(Distill(), build, data, 4, 48, teacher=other, resume=True, **keep)  # type: ignore[arg-type]
    state = fit(Distill(), build, data, 4, 48, teacher=[teacher], resume=True, **keep)  # type: ignore[arg-type]
    assert differences(whole.state_dict(), state.state_dict()) == []
