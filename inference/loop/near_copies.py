"""Members that ended as near copies of one another: an ensemble of such is no better than one network."""

from bayes_share.inference.loop.history import Line

_FEW = 0.3  # of the errors
_ERRORS = 20  # below which few disagreements are chance


def near_copies(line: Line, examples: int | float, members: int) -> str | None:
    """What to say where members that share their weights are near copies; None where they are not, or few errors tell.

    The disagreement is measured by the error rate, since members differ where they are wrong. In trials of ResNet-20 at
    full length, and of ResNet-8 on small images, the members of deep ensembles disagree on 0.75 to 1.4 times as many
    examples as the ensemble gets wrong, those of BatchEnsembles that close half of the gap or more on 0.55 and more,
    and those that are no better than one network on 0.2 to 0.27. So near copies are those below 0.3. Of 20 errors,
    members like a deep ensemble's would have that few disagreements by chance in fewer than one training in a hundred.

    Args:
        line: of the history, of the state that is judged.
        examples: that the scores in it are of.
        members: how many there are.

    >>> line = {"validation_accuracy": 0.928, "validation_disagreement": 0.019}
    >>> near_copies(line, 5000, 4)[:59]
    'the 4 members are near copies: two of them disagree on 1.9%'
    >>> near_copies({**line, "validation_disagreement": 0.074}, 5000, 4), near_copies(line, 200, 4)
    (None, None)
    """
    if not {"validation_accuracy", "validation_disagreement"} <= set(line):
        return None
    errors, apart = 1 - line["validation_accuracy"], line["validation_disagreement"]
    if errors * examples < _ERRORS or apart >= _FEW * errors:
        return None
    return (
        f"the {members} members are near copies: two of them disagree on {apart:.1%} of the validation examples, where "
        f"{errors:.1%} are wrong; for members that differ, start the factors at random signs (init random_sign), or "
        f"give each member data of its own (feed own or bootstrap)"
    )
