"""The IVON optimizer: a Gaussian posterior over weights, with its precision from an estimate of the Hessian."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal, get_args

import torch
from ivon import IVON as PackageIVON
from torch import Tensor

from bayes_share.errors import InputError, unknown
from bayes_share.inference.methods.ivon.vectors import device_and_dtype, grouped_by, join, split_like

HessianEstimate = Literal["price", "gradsq"]
Centre = float | Literal["sign"]


class IVONOptimizer(torch.optim.Optimizer):
    """Improved Variational Online Newton (Shen et al. 2024, arXiv 2402.17641, algorithm 1).

    The posterior of each weight is normal. Its mean is the parameter itself, and its precision is ``ess * (hess +
    decay)``. The update rules are those of the package ivon-opt. Unlike there, the state is stored for each parameter,
    so it is part of the state dict and groups can be added. Parameters that are frozen or have no gradient are not
    changed. When `sampled_params` exits, even by an exception, the means are restored in their memory format.

    A step consists of one or more draws, each with a gradient, and an update with their averages::

        with optimizer.sampled_params(train=True):
            loss(model(x), y).backward()   # in one or more parts; clip and unscale here, inside
        optimizer.step()

    The state is at least in float32; bfloat16 parameters are rounded after each update and each draw. The optimizer
    does not average gradients between processes.

    Args:
        params: parameters or parameter groups. A group may set any of the following options except `mc_samples` and
            `hess_approx`, and may have other keys. A group may have `priors` in place of `weight_decay` and `centre`:
            for each parameter, the mean and the standard deviation of its normal prior, two tensors of its shape.
        lr: learning rate. A step is multiplied by ``hess_init + weight_decay``, as in the package, so that training
            starts with steps of plain gradient descent.
        ess: effective sample size: the factor from the mean loss to the sum over the data.
        hess_init: Hessian of the loss before the first step (h0).
        beta1: decay rate of the moving average of the gradient.
        beta2: decay rate of the moving average of the Hessian.
        weight_decay: precision of the prior, divided by `ess`.
        centre: mean of the prior: a number, or "sign": the sign (+1 or -1) of the parameter's value when it is added.
        clip_radius: maximum step of each weight, before the learning rate.
        mc_samples: number of draws in a step with a closure.
        hess_approx: estimator of the Hessian: "price" (Price's theorem, from gradients at draws) or "gradsq" (squared
            gradients).

    Raises:
        InputError: if an option is out of range, or a parameter is not real.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        ess: float,
        hess_init: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.99999,
        weight_decay: float = 1e-4,
        centre: Centre = 0.0,
        clip_radius: float = float("inf"),
        mc_samples: int = 1,
        hess_approx: HessianEstimate = "price",
    ) -> None:
        if hess_approx not in get_args(HessianEstimate):
            raise unknown("estimate of the Hessian", hess_approx, get_args(HessianEstimate))
        if mc_samples < 1:
            raise InputError(f"mc_samples must be at least 1, and is {mc_samples}")
        self.mc_samples = mc_samples
        self.hess_approx = hess_approx
        self._is_sampling = False
        self._count = 0
        self._found: dict[Tensor, list[Tensor]] = {}
        options = (lr, ess, hess_init, beta1, beta2, weight_decay, centre, clip_radius)
        names = ("lr", "ess", "hess_init", "beta1", "beta2", "weight_decay", "centre", "clip_radius")
        super().__init__(params, dict(zip(names, options, strict=True)))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group. Options that it does not set have their defaults.

        Raises:
            InputError: if an option is out of range, or a parameter is not real.
        """
        _check({**self.defaults, **param_group})
        own = dict(param_group)
        priors = own.pop("priors", None)
        super().add_param_group(own)
        group = self.param_groups[-1]
        steps: dict[torch.device, Tensor] = {}  # shared by parameters as long as they are updated together
        for number, p in enumerate(group["params"]):
            if not p.is_floating_point():
                raise InputError(f"IVON requires real floating-point parameters, not {p.dtype}")
            values = p.detach().to(_state_dtype(p.dtype), memory_format=torch.contiguous_format, copy=True)
            self.state[p] = {
                "step": steps.setdefault(p.device, torch.zeros((), dtype=torch.float64, device=p.device)),
                "momentum": torch.zeros_like(values),
                "hess": torch.full_like(values, group["hess_init"]),
            }
            if group["centre"] == "sign":
                self.state[p]["centre"] = torch.where(values < 0, -1.0, 1.0).to(values)
            if priors is not None:
                mean, sd = (torch.empty_like(values).copy_(part) for part in priors[number])
                self.state[p] |= {"centre": mean, "decay": sd.square().mul_(group["ess"]).reciprocal_()}

    def __getstate__(self) -> dict[str, Any]:
        """Return all attributes, where torch's optimizers return only their own."""
        return self.__dict__.copy()

    @contextmanager
    def sampled_params(self, train: bool = False) -> Iterator[None]:
        """Replace the means by a draw from the posterior within the context.

        Args:
            train: whether the gradients count as a draw of the next `step`. They are then cleared at the start and
                removed at the end, so accumulate and clip them inside the context. After an exception they are
                discarded.

        Raises:
            InputError: if contexts are nested; with `train`, at the end, if there are no gradients or they are sparse.
        """
        if self._is_sampling:
            raise InputError("sampled_params cannot be nested: exit the current context before entering another")
        parts = [
            (group, part) for group in self.param_groups for part in grouped_by(_trainable(group), device_and_dtype)
        ]
        params = [p for _, part in parts for p in part]
        means = [p.detach().clone() for p in params]
        self._is_sampling = True
        try:
            with torch.no_grad():
                noises = [noise for group, part in parts for noise in self._noise(group, part)]
                torch._foreach_add_(params, noises)
            torch.clear_autocast_cache()  # cached low-precision weights do not follow in-place changes
            if train:
                self.zero_grad()
            yield
            if train:
                self._collect(params, noises)
        finally:
            with torch.no_grad():
                torch._foreach_copy_(params, means)
            torch.clear_autocast_cache()
            self._is_sampling = False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update means and Hessians with the average over the draws since the last step.

        Args:
            closure: computes the loss and its gradients, and returns the loss. It is called under `mc_samples` draws.

        Returns:
            The mean of the closure's losses; None without a closure.

        Raises:
            InputError: if there is no draw with a gradient since the last step.
        """
        losses = []
        if closure is not None:
            for _ in range(self.mc_samples):
                with self.sampled_params(train=True), torch.enable_grad():
                    losses.append(closure())
        if not self._count:
            raise InputError("step requires gradients: call backward inside 'with sampled_params(train=True)'")
        with torch.no_grad():
            for group in self.param_groups:
                used = [p for p in group["params"] if p in self._found]
                for part in grouped_by(used, lambda p: id(self.state[p]["step"])):
                    step = self._advance_step(group, part)
                    for alike in grouped_by(part, device_and_dtype):
                        self._update(group, alike, step)
        self.forget()
        return sum(losses) / len(losses) if losses else None

    def forget(self) -> None:
        """Discard the draws since the last step, so that the next `step` uses only later ones."""
        self._found.clear()
        self._count = 0

    def gradients(self) -> list[Tensor]:
        """Return the tensors that the next `step` uses. They are linear in the gradient of the loss.

        For "price", these are the sums over draws of each parameter's gradient, and of the gradient times the noise.
        For "gradsq", which squares gradients in the step, they are the gradients at each draw.
        """
        return [tensor for tensors in self._found.values() for tensor in tensors]

    def sd(self, p: Tensor) -> Tensor:
        """Return the posterior standard deviation of a parameter, in its shape and at least in float32."""
        group = next(group for group in self.param_groups if any(p is other for other in group["params"]))
        decay = self.state[p].get("decay", group["weight_decay"])
        return (group["ess"] * (self.state[p]["hess"] + decay)).rsqrt()

    @torch.no_grad()
    def kl(self) -> list[Tensor]:
        """Return the KL divergence of the posterior from the prior, in nats, summed over the parameters of each group.

        ``KL(N(m, 1 / (ess (h + d))) | N(c, 1 / (ess d)))``, with Hessian h, weight decay d and centre c. Without weight
        decay there is no prior, and the divergence is 0.
        """
        return [self._group_kl(group) for group in self.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict in the format of torch's optimizers, with step counts as integers."""
        found = super().state_dict()
        states = {key: {**state, "step": int(state["step"])} for key, state in found["state"].items()}
        return {**found, "state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the result of `state_dict`, in the precision of this optimizer's state rather than the parameters'."""
        super().load_state_dict(state_dict)
        keys = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        params = chain.from_iterable(group["params"] for group in self.param_groups)
        groups = {p: number for number, group in enumerate(self.param_groups) for p in group["params"]}
        steps: dict[Hashable, Tensor] = {}
        for key, p in zip(keys, params, strict=True):
            for name, value in state_dict["state"][key].items():
                if isinstance(value, Tensor):
                    self.state[p][name] = value.detach().to(p.device, _state_dtype(p.dtype), copy=True)
            number, group = int(state_dict["state"][key]["step"]), groups[p]
            own = torch.tensor(float(number), dtype=torch.float64, device=p.device)
            self.state[p]["step"] = steps.setdefault((number, group, p.device), own)

    def _noise(self, group: dict[str, Any], params: Sequence[Tensor]) -> list[Tensor]:
        precision = group["ess"] * (self._flat(params, "hess") + self._decay(group, params))
        return split_like(torch.randn_like(precision) / precision.sqrt(), params)

    def _collect(self, params: Sequence[Tensor], noises: Sequence[Tensor]) -> None:
        used = [(p, noise) for p, noise in zip(params, noises, strict=True) if p.grad is not None]
        if not used:
            raise InputError("no parameter has a gradient: call backward inside 'with sampled_params(train=True)'")
        if any(p.grad.layout != torch.strided for p, _ in used if p.grad is not None):
            raise InputError("IVON does not support sparse gradients: use Embedding(sparse=False)")
        grads = [p.grad.to(noise.dtype) for p, noise in used if p.grad is not None]
        if self.hess_approx == "price":
            products = torch._foreach_mul(grads, [noise for _, noise in used])
            for (p, _), *now in zip(used, grads, products, strict=True):
                before = self._found.get(p)
                self._found[p] = now if before is None else list(torch._foreach_add(before, now))
        else:
            for (p, _), grad in zip(used, grads, strict=True):
                self._found.setdefault(p, []).append(grad)
        for p, _ in used:
            p.grad = None
        self._count += 1

    def _gradient_sums(self, p: Tensor) -> list[Tensor]:
        """Return the sums over draws of a parameter's gradient and of the terms for its Hessian."""
        found = self._found[p]
        if self.hess_approx == "price":
            return found
        return [torch.stack(found).sum(0), torch.stack(found).square().sum(0)]

    def _advance_step(self, group: dict[str, Any], params: Sequence[Tensor]) -> Tensor:
        """Advance the step count that parameters share. If others in the group share it too, theirs is not changed."""
        step = self.state[params[0]]["step"]
        if sum(self.state[p]["step"] is step for p in group["params"]) > len(params):
            step = step.clone()
            for p in params:
                self.state[p]["step"] = step
        return step.add_(1)

    def _update(self, group: dict[str, Any], params: Sequence[Tensor], step: Tensor) -> None:
        """Update parameters of the same device and dtype by the rules of the package."""
        decay, centre = self._decay(group, params), self._centre(group, params)
        grad, product = [join(sums) for sums in zip(*map(self._gradient_sums, params), strict=True)]
        if self._count > 1:
            grad, product = grad / self._count, product / self._count
        momentum = PackageIVON._new_momentum(grad, self._flat(params, "momentum"), group["beta1"])
        hess = PackageIVON._new_hess(
            self.hess_approx,
            self._flat(params, "hess"),
            product,
            product,
            slice(None),
            group["ess"],
            group["beta2"],
            decay,
        )
        hess = hess.clamp(min=_min_precision(hess.dtype, group["hess_init"] + decay) - decay)
        # The package assumes a prior centred at 0, so the centre is subtracted here and added again afterwards.
        means = PackageIVON._new_param_averages(
            _minus_centre(join(params).to(hess.dtype), centre),
            hess,
            momentum,
            group["lr"] * (group["hess_init"] + decay),
            decay,
            group["clip_radius"],
            1 - torch.pow(group["beta1"], step),
            group["hess_init"],
        )
        means = means if _is_zero(centre) else centre + means
        torch._foreach_copy_(list(params), split_like(means, params))
        for name, flat in (("momentum", momentum), ("hess", hess)):
            torch._foreach_copy_([self.state[p][name] for p in params], split_like(flat, params))

    def _group_kl(self, group: dict[str, Any]) -> Tensor:
        params = group["params"]
        total = torch.zeros((), device=params[0].device)
        for part in grouped_by(_trainable(group), device_and_dtype):
            decay = self._decay(group, part)
            if not isinstance(decay, Tensor) and decay == 0:
                continue
            hess = self._flat(part, "hess")
            excess = -hess / (hess + decay)  # ratio of the variances, minus 1
            distance = _minus_centre(join(part).to(hess.dtype), self._centre(group, part))
            terms = excess - excess.log1p() + group["ess"] * decay * distance.square()
            total = total + 0.5 * terms.sum().clamp(min=0).to(total.device)
        return total

    def _decay(self, group: dict[str, Any], params: Sequence[Tensor]) -> Tensor | float:
        """Return the precision of the prior divided by `ess`, elementwise if the group has priors."""
        return self._flat(params, "decay") if "decay" in self.state[params[0]] else group["weight_decay"]

    def _centre(self, group: dict[str, Any], params: Sequence[Tensor]) -> Tensor | float:
        return self._flat(params, "centre") if "centre" in self.state[params[0]] else group["centre"]

    def _flat(self, params: Sequence[Tensor], name: str) -> Tensor:
        return join(self.state[p][name] for p in params)


def _check(options: dict[str, Any]) -> None:
    """Raise InputError if an option of a group is out of range."""
    for name in ("ess", "hess_init", "clip_radius"):
        if not options[name] > 0:
            raise InputError(f"{name} must be positive, and is {options[name]}")
    for name in ("lr", "weight_decay"):
        if not options[name] >= 0:
            raise InputError(f"{name} must not be negative, and is {options[name]}")
    for name in ("beta1", "beta2"):
        if not 0 <= options[name] < 1:
            raise InputError(f"{name} must be at least 0 and below 1, and is {options[name]}")


def _trainable(group: dict[str, Any]) -> list[Tensor]:
    return [p for p in group["params"] if p.requires_grad]


def _state_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _min_precision(dtype: torch.dtype, initial: Tensor | float) -> Tensor | float:
    """Return a precision below which a value may be only rounding error, and its sum with the decay could be 0."""
    info = torch.finfo(dtype)
    least = info.tiny / info.eps
    if isinstance(initial, Tensor):
        return (info.eps * initial).clamp(min=least)
    return max(info.eps * initial, least)


def _is_zero(centre: Tensor | float) -> bool:
    return not isinstance(centre, Tensor) and centre == 0


def _minus_centre(values: Tensor, centre: Tensor | float) -> Tensor:
    return values if _is_zero(centre) else values - centre
