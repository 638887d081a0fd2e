"""``python -m bayes_share``: the command line, also of a clone that is not installed."""

import sys

from bayes_share.cli import main

if __name__ == "__main__":
    sys.exit(main())
