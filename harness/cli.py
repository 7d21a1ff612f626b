"""The command line. Heavy imports happen inside the commands: `--help` and `list` load no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from harness.registry import KINDS, UsageError, did_you_mean, names

EXIT_USAGE, EXIT_PARTIAL = 2, 3
DEFAULT_OUT = Path("results/runs")
FORMATS = ("terminal", "md", "latex", "csv", "html")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Multi-class visual anomaly detection, compared fairly.",
)


@app.command()
def run(
    benchmarks: Annotated[
        list[str], typer.Argument(help="Data sets by name, or folders in the MVTec layout.")
    ],
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Default: all methods.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds; they are counted from 0.")] = 5,
    preset: Annotated[str, typer.Option(help="paper, quick or smoke.")] = "paper",
    mode: Annotated[
        str, typer.Option(help="multi-class: one model a data set; separate: one a category.")
    ] = "multi-class",
    category: Annotated[list[str] | None, typer.Option(help="Default: all present.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="METHOD.FIELD=VALUE, e.g. lafite.k=5.")
    ] = None,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="What each part adds: Table 4 and edit-only.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(envvar="LAFITE_BENCH_DATA", help="Where data sets lie.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of results.")] = DEFAULT_OUT,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; default RAY_ADDRESS, else this machine.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers that fit one model.")] = 1,
    cpus_per_worker: Annotated[int, typer.Option(min=1)] = 1,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="Default: 1 where the cluster has GPUs.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Epochs between checkpoints of a training.")
    ] = 10,
    patience: Annotated[
        int, typer.Option(min=1, help="Seconds that workers wait for one that is silent.")
    ] = 600,
    overwrite: Annotated[bool, typer.Option(help="Do finished cells again.")] = False,
    cache: Annotated[bool, typer.Option(help="Keep frozen features for later runs.")] = True,
    dry_run: Annotated[bool, typer.Option(help="Print the cells and their cost only.")] = False,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Add a row with the knobs that `tune` chose.")
    ] = False,
    refit: Annotated[
        bool, typer.Option("--refit", help="As --tuned, trained on all training images again.")
    ] = False,
    metric_profile: Annotated[
        str, typer.Option(help="default, or metrics as uniad, patchcore or ader take them.")
    ] = "default",
    log: Annotated[
        list[str] | None, typer.Option(help="tensorboard or mlflow: losses while they come.")
    ] = None,
) -> None:
    """Compare methods: data sets x methods x seeds, resumed where they stopped."""
    from harness.commands.run import Request, run_command

    request = Request(
        benchmarks=benchmarks,
        methods=method or [],
        seeds=seeds,
        preset=preset,
        mode=mode,
        categories=category or [],
        overrides=set_ or [],
        ablation=ablation,
        root=data,
        out=out,
        address=address,
        workers=workers,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        checkpoint_every=checkpoint_every,
        patience=patience,
        overwrite=overwrite,
        cache=cache,
        dry_run=dry_run,
        tuned=tuned,
        refit=refit,
        log=tuple(log or ()),
        profile=metric_profile,
    )
    complete = run_command(request)
    raise typer.Exit(0 if complete else EXIT_PARTIAL)


@app.command()
def tune(
    benchmarks: Annotated[
        list[str], typer.Argument(help="Data sets by name, or folders in the MVTec layout.")
    ],
    method: Annotated[
        list[str] | None, typer.Option("--method", "-m", help="Default: all that have knobs.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Trainings that the objective averages.")] = 1,
    preset: Annotated[str, typer.Option(help="paper, quick or smoke.")] = "paper",
    mode: Annotated[
        str, typer.Option(help="multi-class: one model a data set; separate: one a category.")
    ] = "multi-class",
    category: Annotated[list[str] | None, typer.Option(help="Default: all present.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="METHOD.FIELD=VALUE to start from.")
    ] = None,
    space: Annotated[
        list[str] | None,
        typer.Option(help="METHOD.KNOB=1,3,5 or start:stop:step instead of its own grid."),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="A metric, or several joined by +, averaged.")
    ] = "image_auroc",
    share: Annotated[float, typer.Option(help="Share of training images held out.")] = 0.1,
    anomalies: Annotated[
        int, typer.Option(min=1, help="Pseudo-anomalous images of each held-out one.")
    ] = 1,
    joint: Annotated[
        bool, typer.Option("--joint", help="All combinations, not stage by stage.")
    ] = False,
    early_stop: Annotated[
        bool, typer.Option("--early-stop", help="End hopeless trials on part of the images.")
    ] = False,
    searcher: Annotated[
        str | None, typer.Option(help="optuna: draws settings from all combinations.")
    ] = None,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="After the freeze: how good is the choice on test?")
    ] = False,
    curve: Annotated[
        int | None, typer.Option(min=1, help="Score every so many epochs of the training.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(envvar="LAFITE_BENCH_DATA", help="Where data sets lie.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of results.")] = DEFAULT_OUT,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; default RAY_ADDRESS, else this machine.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Workers that fit one model.")] = 1,
    cpus_per_worker: Annotated[int, typer.Option(min=1)] = 1,
    gpus_per_worker: Annotated[
        float | None, typer.Option(min=0, help="Default: 1 where the cluster has GPUs.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Epochs between checkpoints of a training.")
    ] = 10,
    patience: Annotated[
        int, typer.Option(min=1, help="Seconds that workers wait for one that is silent.")
    ] = 600,
    cache: Annotated[bool, typer.Option(help="Keep frozen features for later runs.")] = True,
) -> None:
    """Choose knobs without one anomaly and freeze the choice; the test split stays sealed."""
    from harness.commands.tune import TuneRequest, tune_command

    request = TuneRequest(
        benchmarks=benchmarks,
        methods=method or [],
        seeds=seeds,
        preset=preset,
        mode=mode,
        categories=category or [],
        overrides=set_ or [],
        ablation=False,
        root=data,
        out=out,
        address=address,
        workers=workers,
        cpus=cpus_per_worker,
        gpus=gpus_per_worker,
        checkpoint_every=checkpoint_every,
        patience=patience,
        overwrite=False,
        cache=cache,
        dry_run=False,
        space=space or [],
        objective=objective,
        share=share,
        anomalies=anomalies,
        joint=joint,
        early_stop=early_stop,
        searcher=searcher,
        reveal=reveal,
        curve=curve,
    )
    raise typer.Exit(0 if tune_command(request) else EXIT_PARTIAL)


@app.command()
def report(
    path: Annotated[Path, typer.Argument(help="Folder of results.")] = DEFAULT_OUT,
    format_: Annotated[
        str, typer.Option("--format", help="terminal, md, latex, csv or html.")
    ] = "terminal",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default of html: report.html in the folder.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again as cells finish, until Ctrl-C.")
    ] = False,
) -> None:
    """Print the tables of a folder of results, or write them as one HTML file."""
    from harness.commands.report import reports

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: {did_you_mean(format_, list(FORMATS))}")
    for text in reports(path, format_, out, watch=watch):
        typer.echo(text)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A row of the tables: method and variant.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    path: Annotated[Path, typer.Argument(help="Folder of results.")] = DEFAULT_OUT,
    format_: Annotated[str, typer.Option("--format", help="terminal or md.")] = "terminal",
) -> None:
    """Say for each metric whether one row is better than another, and where."""
    from harness.commands.report import compared

    if format_ not in ("terminal", "md"):
        raise UsageError(f"--format {format_}: {did_you_mean(format_, ['terminal', 'md'])}")
    typer.echo(compared(path, a, b, format_))


@app.command(name="list")
def list_() -> None:
    """Print what there is: methods, data sets, kernels, metrics."""
    for kind in KINDS:
        typer.echo(f"{kind}: {', '.join(names(kind))}")
    from results.metrics import METRICS

    typer.echo(f"metrics: {', '.join(METRICS)}")


@app.command()
def doctor(
    data: Annotated[Path | None, typer.Option(envvar="LAFITE_BENCH_DATA")] = None,
) -> None:
    """Print versions, devices, which kernels are fast here and where data was looked for."""
    from harness.commands.doctor import examine

    typer.echo(examine(data))


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="Folder of results.")],
    category: Annotated[str, typer.Option(help="The category to look at.")],
    method: Annotated[str, typer.Option("--method", "-m")] = "lafite",
    seed: Annotated[int, typer.Option()] = 0,
    image: Annotated[str | None, typer.Option(help="Default: the worst misses and alarms.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of PNG files.")] = Path("preview"),
) -> None:
    """Draw what a trained model sees: image, mask, map, distances, features at several t."""
    from harness.commands.show import show as draw

    for written in draw(path, out, method=method, seed=seed, category=category, image=image):
        typer.echo(str(written))


@app.command()
def speed(
    op: Annotated[
        str | None,
        typer.Option(
            help="A kernel, backbone, training, metrics, tuning, anomalib; default: kernels, "
            "backbone."
        ),
    ] = None,
    points: Annotated[
        str | None, typer.Option(help="Real features: a data set, or an (N, D) .npy file.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the table and plot.")] = Path("preview"),
    quick: Annotated[bool, typer.Option(help="Small sizes, seconds.")] = False,
    preset: Annotated[
        str, typer.Option(help="Of --op training and tuning: paper, quick, smoke.")
    ] = "quick",
) -> None:
    """Time the kernels beside what one would use instead, after checking them."""
    lines = _race(op, points, preset)
    if lines is not None:
        for line in lines:
            typer.echo(line)
        return
    if op in (None, "backbone"):
        from harness.speed.backbone import race

        typer.echo(race())
    if op != "backbone":
        from harness.speed.kernels import speed as contest

        try:
            typer.echo(contest(op, points, out, quick, lambda line: typer.echo(line, err=True)))
        except ValueError as error:
            raise UsageError(f"speed: {error}") from None


def _race(op: str | None, points: str | None, preset: str) -> Iterator[str] | None:
    """The lines of what is timed as a whole; None for kernels and backbones."""
    match op:
        case "training":
            from harness.speed import training

            return training.race(preset)
        case "metrics":
            from harness.speed import metrics

            return metrics.race()
        case "tuning":
            from harness.speed import search

            return search.race(_named(op, points), preset)
        case "anomalib":
            from harness.speed import anomalib

            return anomalib.race(_named(op, points), lambda line: typer.echo(line, err=True))
    return None


def _named(op: str, points: str | None) -> str:
    if points is None:
        raise UsageError(f"speed --op {op}: name a data set, --points ./my-parts")
    return points


@app.command()
def synth(
    benchmark: Annotated[str, typer.Argument(help="A data set, or a folder.")],
    out: Annotated[Path, typer.Option(help="A new folder, in the MVTec layout.")],
    category: Annotated[list[str] | None, typer.Option()] = None,
    seed: Annotated[int, typer.Option()] = 0,
    share: Annotated[float, typer.Option(help="Share of training images held out.")] = 0.1,
    anomalies: Annotated[
        int, typer.Option(min=1, help="Pseudo-anomalous images of each held-out one.")
    ] = 1,
    data: Annotated[Path | None, typer.Option(envvar="LAFITE_BENCH_DATA")] = None,
) -> None:
    """Write synthetic anomalies, made of normal images alone, and a contact sheet."""
    from rich.console import Console

    from harness.commands._progress import tally
    from harness.commands.synth import SynthRequest
    from harness.commands.synth import synth as write

    request = SynthRequest(
        benchmark=benchmark,
        out=out,
        root=data,
        categories=category or [],
        seed=seed,
        share=share,
        anomalies=anomalies,
    )
    with tally(f"synthesis on {benchmark}", Console(stderr=True)) as show_progress:
        sheet = write(request, show_progress)
    typer.echo(str(sheet))


def main() -> None:
    """The console script: bad input ends in one line a problem and exit code 2."""
    from benchmarks.base import DataError

    try:
        app()
    except (UsageError, DataError) as error:
        print(f"lafite-bench: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except OSError as error:
        # A full or vanished disk is no bug; what was finished before is whole.
        print(f"lafite-bench: {error}; run the same command again to go on", file=sys.stderr)
        sys.exit(EXIT_USAGE)
