"""`load_run` as a command, with the error messages and exit codes of the command line."""

import sys
from hashlib import sha256

import bayes_share
from bayes_share.errors import InputError, RunError


def load_run(words: list[str]) -> int:
    """Print the step of a run and a digest of its predictions: ``load_run RUN``."""
    try:
        training = bayes_share.load_run(words[1])
        logits = training.predict(training.data.test, 2)
    except (InputError, RunError) as error:
        print(f"bayes-share: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print("bayes-share: stopped", file=sys.stderr)
        return 130
    print(training.step, sha256(logits.numpy().tobytes()).hexdigest())
    return 0
