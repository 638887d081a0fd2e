"""The command line."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from bayes_share.errors import OUT_OF_MEMORY, InputError, RunError, for_command_line, is_out_of_memory
from bayes_share.io.terminal import fill_streams, say, show_no_more, showing_log
from bayes_share.options.parser import OptionParser
from bayes_share.runs.interrupt import terminable
from bayes_share.version import __version__


@dataclass(frozen=True)
class Command:
    """A command of ``bayes-share``.

    Args:
        summary: one-line description for the help.
        module: name of the module, which is imported only if the command is used. It defines ``parser(words)``, which
            returns the command's parser and may depend on the arguments, and ``run(options)``.
    """

    summary: str
    module: str


COMMANDS = {
    "quickstart": Command(
        "train and compare a single network, a BatchEnsemble and a deep ensemble on real images in a minute",
        "bayes_share.commands.quickstart",
    ),
    "fit": Command("train a network and write its predictions into a run folder", "bayes_share.commands.fit"),
    "evaluate": Command(
        "score runs, draw their reliability diagrams, and test them on other data", "bayes_share.commands.evaluate"
    ),
    "predict": Command("predict new rows of a table with a trained run", "bayes_share.commands.predict"),
    "report": Command(
        "write an HTML report on runs: scores, calibration, robustness, members and costs",
        "bayes_share.commands.report",
    ),
    "study": Command("train many runs in one folder, and compare them over seeds", "bayes_share.commands.study"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    The exit code is 0 on success, 1 if a run had to stop, 2 for invalid input, 130 after Ctrl-C or SIGTERM, and 141 if
    the reader of the output stopped reading. SIGTERM ends a command as Ctrl-C does: a run saves its progress and the
    command prints a message.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    fill_streams()
    try:
        with terminable(), for_command_line():
            return _run(words or ["--help"])
    except InputError as error:
        return _stopped(error, 2)
    except RunError as error:
        return _stopped(error, 1)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _stopped(OUT_OF_MEMORY, 1)
    except KeyboardInterrupt as error:
        return _stopped(str(error) or "stopped", 130)
    except BrokenPipeError:  # the reader of the output, such as `head`, has stopped reading
        show_no_more()
        return 141


def _run(words: Sequence[str]) -> int:
    parser = OptionParser(
        prog="bayes-share",
        usage="bayes-share COMMAND [OPTIONS]",
        description="The uncertainty of an ensemble for the parameters of one network.",
        epilog="'bayes-share COMMAND --help' explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"bayes-share {__version__}", help="show the version")
    commands = parser.add_subcommands(dest="command", title="commands", description=None)
    for name, command in COMMANDS.items():
        own = import_module(command.module).parser(words[1:]) if name == words[0] else OptionParser()
        prog = own.prog
        commands.add_subcommand(name, own, help=command.summary)
        own.prog = prog  # restored, since `add_subcommand` inserts "[options]"
    try:
        options: Any = parser.parse_args(words)
    except SystemExit as stop:  # after --help
        return int(stop.code or 0)
    with showing_log():
        import_module(COMMANDS[options.command].module).run(options[options.command])
    return 0


def _stopped(why: object, code: int) -> int:
    say(f"bayes-share: {why}")
    return code
