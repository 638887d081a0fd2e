"""What a run is: an algorithm and all options, as one record and as one flat, readable file."""

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
from bayes_share.sharing.module_conversion import NormSharing
from bayes_share.tasks import DataSpec, NetworkChoice, NoiseChoice, check_options, is_table, spec_of

_MOST_DRAWS = 1_000_000


_OF_PRIORS = ("latent", "prior", "prior_scale", "factor_prior", "factor_prior_scale", "factor_prior_centre")


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run depends on.

    Args:
        algorithm: how the network is learned.
        data: images: "digits", "cifar10", "cifar100", "svhn", "mnist", "fashion_mnist", "npz:DIR", "npz:FILE" or
            "folder:DIR"; or a table, "csv:FILE", also of Parquet, or a folder of such files, "csv:DIR".
        target: column of a table that is predicted.
        likelihood: of the target, where the column leaves a choice: "normal" or "student_t" (measurements), "poisson"
            (counts), "bernoulli" (yes and no) or "categorical" (classes).
        split_by: column that rows of a table are divided by: dates and numbers by time, the latest for the test; texts
            by groups, none of which is in two parts. It is no input. null: at random.
        id_column: column with the names of a table's rows, which is no input. null: their numbers.
        noise: of real-valued targets: "predicted" by the network for each row, or "learned", one for all.
        noise_beta: from 0 to 1, where noise is predicted: weights each loss by the variance to this power (β-NLL); 0.5
            often gives better means. For map, mc-dropout, and deep-ensemble and distill of these.
        data_dir: folder that data sets are downloaded to and looked for in.
        split_seed: of the split into training, validation and test examples, where the data have none of their own.
        augment: "auto" (what suits the data), "none", "flip", "crop" or "flip-crop".
        hold_out: classes that are left out of training, validation and test, for example [8, 9]; their test images are
            the out-of-distribution set "held-out".
        train_images: a random part of so many training images, by class, drawn by split_seed once validation images
            are set aside; validation and test images stay whole. null: all.
        image_size: height and width in pixels that images are brought to: pictures of a folder that are of several
            sizes, or not square, are resized and cropped, others are averaged down; null: as they are stored.
        model: of images: "lenet", "mlp", "resnet18", "resnet20", "resnet32", "resnet56", "resnet110" or "vgg11"; or of
            any depth D and width W: "mlpD_W" (D hidden layers of W units), "resnetD" or "resnetD_W" (D = 6n + 2; W
            channels in the first stage, 16 if left out), "vgg11_W" (W channels in the first layer), "wide_resnetD_W"
            (28_10); or one of another library, "timm:NAME" or "torchvision:NAME" ("timm:resnet18"). Of tables: "mlp",
            "mlpD_W", or "tabm" and "tabmD_W", which embed numbers.
        weights: file of trained weights that the network starts from, of safetensors or saved by torch, for example of
            timm's or torchvision's; a last layer for other classes is drawn anew. With an ensemble, init "keep" keeps
            what they know. null: drawn anew.
        norm: "batch", "frn", "group" or "none"; null: what the network usually has.
        dropout: probability of dropout, of the network's own; 0: it has none.
        ensemble_size: members that share the network's weights; 1: a single network without factors.
        ensemble_kind: "factors" (each member has rank-1 factors, a BatchEnsemble); or a rival to compare with:
            "packed" (members are narrow networks that share nothing), "masked" (Masksembles: members see each layer's
            inputs through masks of their own) or "mimo" (one network that takes an image for each member; train it
            with feed "own").
        packed_width: of "packed": the width of all members together, over that of the network (alpha).
        packed_groups: of "packed": groups that each member's convolutions are cut into (gamma).
        mask_scale: of "masked": how little masks overlap; 1: all are ones.
        init: start of the factors. For trained weights: "keep". From scratch: "random_sign"; "normal", from which
            members may become near copies in long trainings; "fixed_sign", signs that stay as they are, made from
            seeds, so that members have no number of their own; or "standard_normal". Or "ones". Or one for each of some
            patterns of layers' names, with commas between, of which "first" and "head" are the first and last layer,
            "*" is the rest, and the last one that matches counts: "first=random_sign,*=ones". A pattern that ends in
            ".r" or ".s" is for the factor of the inputs or of the outputs; a layer in own may start "fresh": each
            member draws its weights anew.
        init_sd: standard deviation of "normal".
        init_probability: probability of +1 in "random_sign" and "fixed_sign".
        factor_rank: terms of each member's part of a weight; the first starts as init says, the others small.
        factor_form: "multiplied" (the weight times the terms, a BatchEnsemble) or "additive" (the weight plus the
            terms, LoRA-Ensemble).
        own: what is each member's own and not shared: patterns of modules' names, and the words "norms" (all of them)
            and "head" (the last layer), for example [norms, head, stages.2.*].
        norm_sharing: the old name of own: "member" is [norms], "shared" nothing.
        share_layers: which layers of one shape share one weight, with factors of their own: "none", "early" or "deep"
            (the first or second half of those that have a partner; one in the middle is in both), "all", or patterns
            of their names, with commas between: "stages.0.*,stages.1.*".
        share_factors: of each such layer: "rank1" (r and s), "scalar" (one number) or "none".
        share_norm: "own": each such layer is followed by a norm of its own; "shared": they share that too.
        share_templates: weights of which each such layer learns a mixture; 1: there is one, and no mixture.
        share_groups: parts that the channels of each layer are cut into; the blocks of its weight share one, with
            factors of their own. 1: it is whole, as it is wherever channels do not divide.
        latent: what has a prior, for svi and the samplers: "all", "factors" (r and s), "base" (what members share),
            "last-layer", or "auto" ("factors" of an ensemble, else "last-layer"); the rest are points.
        prior: for svi and the samplers: of weights and biases, around 0, and of norms, around 1; "normal", "laplace" or
            "cauchy".
        prior_scale: of the weights' prior, divided by the root of their fan-in.
        factor_prior: the same for r and s: "normal", "laplace", "cauchy" or "log-normal" (around 1).
        factor_prior_scale: of the factors' prior.
        factor_prior_centre: of the factors' prior: "one", or the "sign" that each starts with.
        epochs: passes over the training examples.
        batch_size: examples in a step; null: all training examples. Of a table with fewer rows, all of them.
        last_batch: what becomes of the examples that remain at the end of an epoch: "drop", or "pad" (a batch that is
            filled up with examples that do not count).
        patience: epochs without a lower validation NLL after which training stops; it then ends, as after all epochs,
            with the best epoch's state. The schedule is laid out for all epochs. null: all epochs are trained.
        keep_members: members, or networks of a deep ensemble, that are kept after training: chosen one by one, on half
            of the validation examples, by the NLL of their mixture; predictions are of these alone. null: all.
        seed: of initialisation, order, augmentation and noise.
        num_samples: draws at prediction.
        validation_samples: draws in each epoch's scores on the validation examples.
        validation_images: how many of the validation examples are scored after each epoch, where scoring all would take
            long beside the training, or where patience is to leave some for conformal prediction; null: all. What is
            chosen at the end, and predictions, are of all.
        checkpoint_minutes: a checkpoint is saved at least this often, and after each epoch that is long beside saving.
        execution: device, precision and the like.
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
    init: str = NetworkSharing.init
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
        check_options(self.data, vars(self), {name: getattr(RunConfig, name, ()) for name in vars(self)})
        sharing = NetworkSharing.of_options(self)
        if self.weights is not None and sharing.is_ruinous:
            if self.ensemble_kind != "factors":
                raise InputError(f"{option('ensemble_kind')} {self.ensemble_kind} takes no {option('weights')}")
            raise InputError(
                f"{option('init')} {self.init} ruins what the weights know: give {option('init')} keep, or ones"
            )
        for name in _OF_PRIORS if not self.algorithm.is_under_priors else ():
            value = getattr(self, name)
            if value != getattr(RunConfig, name):
                algorithm = algorithm_name(self.algorithm)
                under_priors = ", ".join(other for other, kind in ALGORITHMS.items() if kind().is_under_priors)
                raise InputError(
                    f"{option(name)} {value} is for algorithms under priors ({under_priors}), and {algorithm} has "
                    f"penalties instead: leave it out"
                )
        if self.validation_images is not None and self.validation_images < 1:
            raise InputError(f"{option('validation_images')} must be at least 1, and is {self.validation_images}")
        if self.validation_images is not None and self.keep_members is not None:
            raise InputError(
                f"{option('keep_members')} chooses on half of the validation examples: leave "
                f"{option('validation_images')} out"
            )
        for draws in (self.num_samples, self.validation_samples):
            if not 1 <= draws <= _MOST_DRAWS:
                raise InputError(f"prediction takes from 1 to {_MOST_DRAWS:,} draws, not {draws:,}")

    def load_data(self, download: bool = True) -> Data | TableData:
        """Read the data set, and download it where it is not there and may be downloaded."""
        if is_table(self.data):
            path = self.data.partition(":")[2]
            return load_table(path, str(self.target), self.likelihood, self.split_by, self.split_seed, self.id_column)
        return load_data(
            self.data,
            self.data_dir,
            self.split_seed,
            self.augment,
            self.hold_out,
            download,
            self.train_images,
            self.image_size,
        )

    def build(self, data: Data | TableData) -> Build:
        """A function that gives a freshly initialised model for the data."""
        return self.build_for(spec_of(data))

    def build_for(self, spec: DataSpec, weights: Mapping[str, Tensor] = MappingProxyType({})) -> Build:
        """A function that gives a freshly initialised model for examples of a form.

        Args:
            spec: of the examples.
            weights: trained ones that the network starts from, before it is converted; see `load_weights`.
        """
        noise, sharing = NoiseChoice(self.noise, self.noise_beta), NetworkSharing.of_options(self)

        def build() -> Model:
            network = spec.network(NetworkChoice(self.model, self.norm, self.dropout), noise)
            if weights:
                load_weights(network, weights, str(self.weights))
            network = sharing.applied_to(network, spec.example)
            return Model(network, spec.likelihood(noise), self.priors(network))

        return build

    def priors(self, network: nn.Module) -> dict[Selector, Prior]:
        """The rules for the priors of a network's parameters; none for an algorithm that has penalties instead."""
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
