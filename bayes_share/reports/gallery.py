"""The section with images: the most confident errors and the most uncertain images of each run."""

import base64
import io
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from bayes_share.data import Data
from bayes_share.errors import InputError
from bayes_share.evaluation.checks import check_same_images
from bayes_share.models.mixture import mixture_log_probs
from bayes_share.reports.document import Block, Gallery, Opinion, Picture, Section, Share
from bayes_share.reports.results import Result, records
from bayes_share.runs.config_file import from_flat
from bayes_share.runs.identity import check_data
from bayes_share.runs.run_folder import noted_identity
from bayes_share.tasks import is_table

_CLASSES_SHOWN = 3
_OPINIONS_SHOWN = 8


def gallery(runs: Sequence[Result], count: int) -> Section | None:
    """Build the section. Return None if `count` is 0, or there is no run on images whose data could be loaded.

    Args:
        runs: all results, for the same data set.
        count: the number of errors, and of uncertain images, for each run.
    """
    if count < 1:
        return None
    if runs[0].test.num_problems > 1:
        return Section("gallery", "Images", ["Images with several labels are not shown."], [])
    known = records(runs)
    if not known or is_table(str(known[0][1].config["data"])):
        return None
    _, run = known[0]
    try:
        data = from_flat(run.config).load_data(download=False)
        assert isinstance(data, Data)
        check_data(noted_identity(run.folder), data, run.folder.path)
        check_same_images(data.test.labels.cpu(), runs[0].test.labels)
    except InputError as error:
        return Section("gallery", "Images", [f"The images cannot be shown: {error}."], [])
    blocks: list[Block] = []
    shown = next((result for result in runs if result.test.logits.shape[:2].numel() > 1), runs[0])
    for result in runs:
        blocks += _of_run(result, data, count, is_open=result is shown)
    lead = [
        "Each image is shown with its class, and with the most probable classes according to the run and to "
        "each of its members (or draws, if the run has one member)."
    ]
    return Section("gallery", "Confident errors and uncertain images", lead, blocks)


def _of_run(run: Result, data: Data, count: int, is_open: bool) -> list[Block]:
    confidence = run.probs.amax(-1)
    mistakes = (~run.right).nonzero().flatten()
    surest = mistakes[confidence[mistakes].argsort(descending=True, stable=True)][:count]
    unsure = run.uncertainty.entropy.argsort(descending=True, stable=True)[:count]
    blocks: list[Block] = []
    if len(surest):
        caption = "The wrong predictions with the highest confidence."
        blocks.append(Gallery(f"{run.name}: most confident errors", _pictures(run, data, surest), caption, is_open))
    caption = "The predictions with the largest predictive entropy, right or wrong."
    return [*blocks, Gallery(f"{run.name}: most uncertain images", _pictures(run, data, unsure), caption, is_open)]


def _pictures(run: Result, data: Data, indices: Int64[Tensor, "chosen"]) -> list[Picture]:
    logits = run.test.logits[:, :, indices]
    several_members = logits.shape[1] > 1
    parts = logits.transpose(0, 1) if several_members else logits
    who = "member" if several_members else "draw"
    opinions = [("all", run.probs[indices])]
    if len(parts) > 1:
        each = [mixture_log_probs(part[:, None] if several_members else part[None]).exp() for part in parts]
        opinions += [(f"{who} {i}", probs) for i, probs in enumerate(each[:_OPINIONS_SHOWN])]
    names = data.class_names
    pictures = []
    for place, index in enumerate(indices.tolist()):
        label = int(run.test.labels[index])
        said = [_opinion(name, probs[place], label, names) for name, probs in opinions]
        file = "" if data.test.names is None else f" ({data.test.names[index]})"
        title = f"Test image {index}{file}, of class {names[label]}"
        pictures.append(Picture(png_uri(data.test.images[index]), title, said))
    return pictures


def _opinion(who: str, probs: Float[Tensor, "class"], label: int, names: Sequence[str]) -> Opinion:
    top = torch.topk(probs, min(_CLASSES_SHOWN, len(probs)))
    return Opinion(
        who, [Share(names[c], p, c == label) for c, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)]
    )


def png_uri(image: UInt8[Tensor, "channel height width"]) -> str:
    """Encode an image as a data URI of a PNG."""
    from PIL import Image

    pixels = image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[-1] == 1 else pixels[:, :, :3]).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
