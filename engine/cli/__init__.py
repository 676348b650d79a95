"""The command line, one file a verb: reads arguments, calls the library, prints. stdout is data, stderr is for people.

Exit status: 0 all well, 1 usage or configuration error, 3 done but some videos failed, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from engine.cli.build import build
from engine.cli.catalog import catalog
from engine.cli.compare import compare
from engine.cli.dedup import dedup
from engine.cli.evaluate import evaluate
from engine.cli.extract import extract
from engine.cli.fit_pca import fit_pca
from engine.cli.info import info
from engine.cli.localize import localize
from engine.cli.merge import merge
from engine.cli.normalize import normalize
from engine.cli.options import EXIT_CONFIG, EXIT_STOPPED, StoppedError
from engine.cli.report import report
from engine.cli.run import run
from engine.cli.search import search
from engine.cli.serve import serve
from engine.console import LogFormat, say, start_logging
from engine.errors import EngineError, line_of
from engine.version import __version__

app = typer.Typer(
    name="vsc-engine",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""Finds copied video: whole protocols over folders, a catalogue that uploads are compared with, two files.

    Example: vsc-engine compare upload.mp4 film.mp4
    """,
)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its status."""
    try:
        typer.main.get_command(app).main(args=argv, prog_name="vsc-engine")
    except (EngineError, OSError) as error:  # OSError: a folder that cannot be written, a full disk
        told = str(error) if isinstance(error, EngineError) else line_of(error)
        say(f"vsc-engine: {told}", level=logging.ERROR)
        sys.exit(EXIT_CONFIG)
    except StoppedError as stopped:
        _say_stopped(stopped.status, "; what was written before is kept, and the same command goes on from there")
        sys.exit(stopped.status)
    except SystemExit as status:
        if status.code in EXIT_STOPPED:
            _say_stopped(status.code)
        sys.exit(EXIT_CONFIG if status.code == 2 else status.code)  # 2 is the parser's word for wrong usage
    sys.exit(0)


def _say_stopped(status: int, more: str = "") -> None:
    say(f"vsc-engine: stopped by {EXIT_STOPPED[status]}{more}", level=logging.ERROR)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
    log_format: Annotated[LogFormat, typer.Option(help="What lines on stderr are: text, or JSON objects.")] = "text",
) -> None:
    start_logging(level=logging.DEBUG if verbose else logging.INFO, log_format=log_format)
    if version:
        print(f"vsc-engine {__version__}")
        raise typer.Exit


for verb in (
    *(build, extract, merge, fit_pca, normalize, search, localize, evaluate, report),
    *(run, compare, dedup, serve, info),
):
    app.command()(verb)
app.add_typer(catalog, name="catalog")
