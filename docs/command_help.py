"""A directive that shows what ``--help`` prints: ``.. command-help:: fit map``."""

import io
import os
from contextlib import redirect_stdout
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx

from bayes_share.cli import main


class CommandHelp(Directive):
    """The help of a command, as the installed program prints it.

    The argument is the words before ``--help``. The option `section` is the beginning of a
    heading: only the sections that begin with it are shown.
    """

    has_content = False
    optional_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Any]] = {"section": directives.unchanged_required}

    def run(self) -> list[nodes.Node]:
        """Run the command, and show what it printed.

        Raises:
            ValueError: a command that has no help, or a section that its help does not have.
        """
        words = self.arguments[0].split() if self.arguments else []
        text = help_of(words)
        if heading := self.options.get("section"):
            parts = [part for part in text.split("\n\n") if part.startswith(heading)]
            if not parts:
                raise ValueError(f"'bayes-share {' '.join(words)} --help' has no section {heading!r}")
            text = "\n\n".join(parts)
        return [nodes.literal_block(text, text, language="text")]


def help_of(words: list[str]) -> str:
    """What ``bayes-share WORDS --help`` prints, 88 columns wide."""
    os.environ["COLUMNS"] = "88"
    printed = io.StringIO()
    with redirect_stdout(printed):
        code = main([*words, "--help"])
    if code:
        raise ValueError(f"'bayes-share {' '.join(words)} --help' ended with {code}")
    return printed.getvalue().rstrip()


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
