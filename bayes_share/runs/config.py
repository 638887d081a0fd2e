"""The configuration of a run: the algorithm and all options."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from bayes_share.data import Data, load_data
from bayes_share.data.tables.load import TableData, load_table
from bayes_share.errors import InputError, option
from bayes_share.inference import ALGORITHMS, MAP, Build, Execution, Inference
from bayes_share.inference.batches.source import LastBatch
from bayes_share.layers.factors import FactorForm
from bayes_share.models.model import Model
from bayes_share.models.weights import load_weights
from bayes_share.options.records import NOT_AN_OPTION
from bayes_share.priors import (
    WEIGHT_SCALE,
    Centre,
    FactorPriorName,
    Latents,
    Prior,
    Selector,
    WeightPriorName,
    standard_rules,
)
from bayes_share.runs.algorithms import algorithm_name
from bayes_share.runs.network_sharing import EnsembleKind, NetworkSharing
from bayes_share.sharing.layer_sharing import LayerFactors, NormOfLayers
from bayes_share.sharing.module_names import NormSharing
from bayes_share.sharing.starts import read_starts
from bayes_share.tasks import DataSpec, NetworkChoice, NoiseChoice, check_options, is_table, spec_of

_log = logging.getLogger(__name__)

_MAX_DRAWS = 1_000_000

_PRIOR_OPTIONS = ("latent", "prior", "prior_scale", "factor_prior", "factor_prior_scale", "factor_prior_centre")


@dataclass(frozen=True)
class RunConfig:
    """The algorithm and all options of a run.

    Args:
        algorithm: the training algorithm.
        data: the data set. Images: "digits", "cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "npz:DIR",
            "npz:FILE" or "folder:DIR". A table: "csv:FILE" (CSV or Parquet), or "csv:DIR" for a folder of such files.
        target: column of the table to predict.
        likelihood: distribution of the target, where its column allows several: "normal" or "student_t" for
            measurements, "poisson" for counts, "bernoulli" for yes and no, "categorical" for classes. null: chosen from
            the column.
        split_by: column by which the rows of a table are split; it is not used as an input. Dates and numbers are split
            by value, with the largest or latest in the test part; texts are split by group, so that rows with the same
            text are in the same part. null: a random split.
        id_column: column with the names of a table's rows; it is not used as an input. null: rows are numbered.
        noise: noise of real-valued targets: "predicted" by the network for each row, or "learned" as one value for all
            rows.
        noise_beta: exponent from 0 to 1 of the predicted variance by which each row's loss is weighted (β-NLL); 0.5
            often gives better means. Requires noise "predicted", and map or mc-dropout, alone or within deep-ensemble
            or distill.
        data_dir: folder of downloaded data sets; missing ones are downloaded to it.
        split_seed: random seed of the split into training, validation and test examples, if the data have no split.
        augment: data augmentation of images: "auto" (chosen for the data set), "none", "flip", "crop" or "flip-crop".
        hold_out: classes to leave out of training, validation and test, such as [8, 9]; their test images become the
            out-of-distribution set "held-out".
        train_on_validation: whether to train on the validation examples too, as the runs of many published figures do.
            Such a run has no validation scores or predictions, so it cannot be recalibrated or used for conformal
            prediction.
        train_images: number of training images to use, drawn by class with split_seed after the split; validation and
            test images are not reduced. null: all.
        image_size: height and width of images in pixels. Pictures of a folder that differ in size, or are not square,
            are resized and cropped; other images are averaged down. null: the stored size.
        model: the network. For images: "lenet", "mlp", "resnet18", "resnet20", "resnet32", "resnet56", "resnet110" or
            "vgg11"; with depth D and width W: "mlpD_W" (D hidden layers of W units), "resnetD" or "resnetD_W" (D = 6n +
            2; W channels in the first stage, 16 by default), "vgg11_W" (W channels in the first layer),
            "wide_resnetD_W" (such as 28_10); or from another library: "timm:NAME" or "torchvision:NAME", such as
            "timm:resnet18". For tables: "mlp", "mlpD_W", or "tabm" and "tabmD_W", which embed numerical inputs.
        weights: file of trained weights to start from, in safetensors format or saved by torch, such as those of timm
            and torchvision. A last layer with a different number of classes is initialised randomly. For an ensemble,
            use init "keep", which preserves the pretrained function. null: random initialisation.
        norm: normalisation layers: "batch", "frn", "group" or "none". null: the network's own.
        dropout: dropout probability of the network; 0: no dropout.
        ensemble_size: number of members that share the network's weights; 1: a single network without factors.
        ensemble_kind: "factors" (BatchEnsemble: each member has rank-1 factors); or a baseline: "packed" (packed
            ensemble: members are narrow networks that share nothing), "masked" (Masksembles: each member masks the
            inputs of each layer) or "mimo" (one network that takes an image for each member; train it with feed "own").
        packed_width: for "packed": the width of all members together, relative to the network's (alpha).
        packed_groups: for "packed": number of groups of each member's convolutions (gamma).
        mask_scale: for "masked": how little the masks overlap, from 1 (all masks are ones) upwards.
        init: initialisation of the factors. For trained weights: "keep". For training from scratch: "random_sign";
            "fixed_sign", signs that are generated from seeds and not trained, so that members add no parameters;
            "normal", with which members may become nearly equal in long training; or "standard_normal". "ones" makes
            all members equal. To initialise layers differently, give pattern=init pairs separated by commas, such as
            "first=random_sign,*=ones": "first" and "head" are the first and the last layer, "*" is all others, and the
            last pattern that matches is used. A pattern ending in ".r" or ".s" selects the factor of the inputs or of
            the outputs. A layer listed in own may use "fresh": each member initialises its weights independently.
            null: "keep" if weights are given; "normal" for additive factors and for priors that are log-normal or
            centred at one; otherwise "random_sign".
        init_sd: standard deviation of init "normal".
        init_probability: probability of +1 in init "random_sign" and "fixed_sign".
        factor_rank: number of rank-1 terms in each member's factors. The first term is initialised by init, the others
            with small values.
        factor_form: how the terms change the shared weight: "multiplied" (BatchEnsemble) or "additive" (LoRA-Ensemble).
        own: modules whose parameters are not shared between members: patterns of module names, "norms" (all
            normalisation layers) and "head" (the last layer), such as [norms, head, stages.2.*].
        norm_sharing: older form of own: "member" means own [norms], "shared" means own [].
        share_layers: layers of equal shape that share one weight, each with its own factors: "none", "early" or "deep"
            (the first or second half of the layers that have another of equal shape; a middle one is in both), "all",
            or patterns of names separated by commas, such as "stages.0.*,stages.1.*".
        share_factors: factors of each layer that shares its weight: "rank1" (r and s), "scalar" (one factor for the
            whole weight) or "none".
        share_norm: "own": each layer that shares its weight keeps its own norm after it; "shared": the norm is shared
            too.
        share_templates: number of template weights; each layer that shares its weight learns a mixture of them. 1: no
            mixture.
        share_groups: number of groups into which the channels of each layer are divided. All blocks of a weight share
            one base block, each with its own factors. 1: no division. Layers with channels that cannot be
            divided evenly are left whole.
        latent: parameters with a prior, for svi and the samplers: "all", "factors" (r and s), "base" (the parameters
            that members share), "last-layer", or "auto" ("factors" for an ensemble, otherwise "last-layer"). All others
            are point estimates.
        prior: for svi and the samplers: prior of weights and biases (around 0) and of norms (around 1): "normal",
            "laplace" or "cauchy".
        prior_scale: scale of the weights' prior, before division by the square root of the fan-in.
        factor_prior: prior of r and s, for svi and the samplers: "normal", "laplace", "cauchy" or "log-normal" (around
            1). The samplers require positive initial values for "log-normal", as with init "normal" and init_sd 0.1.
        factor_prior_scale: scale of the factors' prior.
        factor_prior_centre: centre of the factors' prior: "one", or the "sign" of each initial value.
        epochs: number of passes over the training examples.
        batch_size: number of examples in a batch. null, or more than a table has training rows: all training examples.
        last_batch: what to do with an incomplete batch at the end of an epoch: "drop" it, or "pad" it with examples of
            weight 0.
        patience: number of epochs without a lower validation NLL after which training stops (early stopping). Training
            then ends with the state of the best epoch, also if all epochs are trained. The learning-rate schedule still
            covers all epochs. null: no early stopping; training ends with the state of the last epoch.
        keep_members: number of members, or networks of a deep ensemble, to keep after training. They are chosen one
            after another by the NLL of their mixture on half of the validation examples. Only they are used for
            predictions. null: all.
        seed: random seed of initialisation, order of examples, augmentation and noise.
        num_samples: number of posterior draws for predictions.
        validation_samples: number of posterior draws for the validation scores of each epoch.
        validation_images: number of validation examples scored after each epoch. Fewer save time, and leave examples
            for conformal prediction if patience is given. Predictions, and choices made after training, use all
            validation examples. null: all.
        checkpoint_minutes: maximum minutes between checkpoints. A checkpoint is also saved after each epoch, unless
            saving takes long compared to the epoch.
        execution: options of the computation, such as device and precision.
    """

    algorithm: Inference[Any] = field(default_factory=MAP, metadata=NOT_AN_OPTION)
    data: str = "digits"
    target: str | None = None
    likelihood: Literal["normal", "student_t", "poisson", "bernoulli", "categorical"] | None = None
    split_by: str | None = None
    id_column: str | None = None
    noise: Literal["predicted", "learned"] = "predicted"
    noise_beta: float = 0.0
    data_dir: str = "data"
    split_seed: int = 0
    augment: Literal["auto", "none", "flip", "crop", "flip-crop"] = "auto"
    hold_out: tuple[int, ...] = ()
    train_on_validation: bool = False
    train_images: int | None = None
    image_size: int | None = None
    model: str = "mlp"
    weights: str | None = None
    norm: Literal["batch", "frn", "group", "none"] | None = None
    dropout: float = 0.0
    ensemble_size: int = NetworkSharing.ensemble_size
    ensemble_kind: EnsembleKind = NetworkSharing.ensemble_kind
    packed_width: float = NetworkSharing.packed_width
    packed_groups: int = NetworkSharing.packed_groups
    mask_scale: float = NetworkSharing.mask_scale
    init: str | None = None
    init_sd: float = NetworkSharing.init_sd
    init_probability: float = NetworkSharing.init_probability
    factor_rank: int = NetworkSharing.factor_rank
    factor_form: FactorForm = NetworkSharing.factor_form
    own: tuple[str, ...] = NetworkSharing.own
    norm_sharing: NormSharing = NetworkSharing.norm_sharing
    share_layers: str = NetworkSharing.share_layers
    share_factors: LayerFactors = NetworkSharing.share_factors
    share_norm: NormOfLayers = NetworkSharing.share_norm
    share_templates: int = NetworkSharing.share_templates
    share_groups: int = NetworkSharing.share_groups
    latent: Latents = "all"
    prior: WeightPriorName = "normal"
    prior_scale: float = WEIGHT_SCALE
    factor_prior: FactorPriorName = "normal"
    factor_prior_scale: float = 0.1
    factor_prior_centre: Centre = "sign"
    epochs: int = 50
    batch_size: int | None = 64
    last_batch: LastBatch = "drop"
    patience: int | None = None
    keep_members: int | None = None
    seed: int = 0
    num_samples: int = 1
    validation_samples: int = 1
    validation_images: int | None = None
    checkpoint_minutes: float = 10.0
    execution: Execution = field(default_factory=Execution, metadata=NOT_AN_OPTION)

    def __post_init__(self) -> None:
        object.__setattr__(self, "init", self._used_init())  # so that the config records it
        check_options(self.data, vars(self), {name: getattr(RunConfig, name, ()) for name in vars(self)})
        sharing = NetworkSharing.of_options(self)
        if self.weights is not None and sharing.is_ruinous:
            if self.ensemble_kind != "factors":
                raise InputError(
                    f"{option('ensemble_kind')} {self.ensemble_kind} cannot start from {option('weights')}"
                )
            raise InputError(
                f"{option('init')} {self.init} would destroy what the trained weights have learned: use "
                f"{option('init')} keep or ones"
            )
        for name in _PRIOR_OPTIONS if not self.algorithm.is_under_priors else ():
            value = getattr(self, name)
            if value != getattr(RunConfig, name):
                algorithm = algorithm_name(self.algorithm)
                under_priors = ", ".join(other for other, kind in ALGORITHMS.items() if kind().is_under_priors)
                raise InputError(
                    f"{option(name)} {value} requires an algorithm that uses priors ({under_priors}), and "
                    f"{algorithm} uses weight decay: leave it out"
                )
        if self.validation_images is not None and self.validation_images < 1:
            raise InputError(f"{option('validation_images')} must be at least 1, and is {self.validation_images}")
        if self.validation_images is not None and self.keep_members is not None:
            raise InputError(
                f"{option('keep_members')} uses half of the validation examples, and cannot be combined with "
                f"{option('validation_images')}: leave the latter out"
            )
        if self.train_on_validation:
            self._check_needs_no_validation()
        for draws in (self.num_samples, self.validation_samples):
            if not 1 <= draws <= _MAX_DRAWS:
                raise InputError(f"the number of draws must be from 1 to {_MAX_DRAWS:,}, and is {draws:,}")

    def _used_init(self) -> str | None:
        """Return the initialisation of the factors; None if there are none.

        Raises:
            InputError: if the given one does not apply to the kind of ensemble.
        """
        if self.init is not None:
            read_starts(self.init, self.init_sd, self.init_probability)  # checks it
        if self.ensemble_size == 1:
            return None
        if self.ensemble_kind != "factors":
            if self.init is not None:
                raise InputError(
                    f"{option('init')} requires {option('ensemble_kind')} factors, not {self.ensemble_kind}: leave it "
                    "out"
                )
            return None
        if self.init is None:
            if self.weights is not None:
                return "keep"
            is_around_one = self.algorithm.is_under_priors and self.factor_prior_centre == "one"
            has_no_signs = self.factor_form == "additive" or self.factor_prior == "log-normal" or is_around_one
            return "normal" if has_no_signs else "random_sign"
        return self.init

    def _check_needs_no_validation(self) -> None:
        for name in ("patience", "keep_members", "validation_images"):
            if getattr(self, name) is not None:
                raise InputError(
                    f"{option(name)} requires validation examples, and {option('train_on_validation')} leaves none: "
                    "leave one of them out"
                )

    def load_data(self, download: bool = True) -> Data | TableData:
        """Load the data set, downloading it if it is missing and `download` is true."""
        if is_table(self.data):
            path = self.data.partition(":")[2]
            return load_table(
                path,
                str(self.target),
                self.likelihood,
                self.split_by,
                self.split_seed,
                self.id_column,
                self.train_on_validation,
            )
        return load_data(
            self.data,
            self.data_dir,
            self.split_seed,
            self.augment,
            self.hold_out,
            download,
            self.train_images,
            self.image_size,
            self.train_on_validation,
        )

    def build(self, data: Data | TableData) -> Build:
        """Return a function that builds a newly initialised model for the data."""
        return self.build_for(spec_of(data))

    def build_for(self, spec: DataSpec, weights: Mapping[str, Tensor] = MappingProxyType({})) -> Build:
        """Return a function that builds a newly initialised model for examples with a given specification.

        Args:
            spec: specification of the examples.
            weights: trained weights by name, loaded into the network before it is converted; see `load_weights`.
        """
        noise, sharing = NoiseChoice(self.noise, self.noise_beta), NetworkSharing.of_options(self)
        is_told = False

        def build() -> Model:
            nonlocal is_told
            network = spec.network(NetworkChoice(self.model, self.norm, self.dropout), noise)
            if weights:
                new = load_weights(network, weights, str(self.weights))
                if new and not is_told:
                    _log.info(
                        "%s has another number of outputs: %s keep their initial values", self.weights, ", ".join(new)
                    )
                is_told = True
            network = sharing.applied_to(network, spec.example)
            return Model(network, spec.likelihood(noise), self.priors(network))

        return build

    def priors(self, network: nn.Module) -> dict[Selector, Prior]:
        """Return the rules for the priors of a network's parameters.

        Empty if the algorithm uses weight decay rather than priors.
        """
        if not self.algorithm.is_under_priors:
            return {}
        return standard_rules(
            network,
            self.latent,
            self.prior,
            self.prior_scale,
            self.factor_prior,
            self.factor_prior_scale,
            self.factor_prior_centre,
        )
