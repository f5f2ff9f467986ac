"""GAN, WGAN, WGAN-GP and LSGAN beside OTGAN, quality against time: ``otgan bench gan [--budget SECONDS] [--jobs 2]``.

Ring, grid, Swiss roll, spiral arms and codes of real digits (10,000 points each, codes with OTGAN_DATA only). All
methods learn from the same points, in units in which a coordinate has variance 1, and all baselines have a generator
with three hidden layers of ``--width`` units (so has their critic, where more than two are published; the noise keeps
its published dimension, but on the codes it has as many as they); "otgan-mlp" fits such a network to the optimal map,
"otgan" is og.OTGAN() as it is. Baselines run at their published settings for ``--budget`` seconds of processor time
(measuring left out, one thread), with ``--grid`` also at the best of a small grid where those fail (each setting tried
for a third of that time on the first seed, and judged by the true law), and with ``--steps published`` also once for
the published number of steps, on the grid, with the networks of the others.

Results are added to a JSON file after each run, and what is there is not run again; `--table` only reads it. Those of
the README are kept: ``--out tests/benchmarks/records/gan.json`` shows them or goes on with them. In full: 5 problems x
5 seeds x 4 baselines x 3 minutes = 5 hours of processor time, up to 7 more where all have to be tuned, and two for
OTGAN; measuring comes on top.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results import limit_threads, machine, say

if TYPE_CHECKING:
    from gan.runs import Task


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--problems", nargs="+", metavar="NAME", help="run and show only these: ring grid roll arms codes"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME", help="only these: gan wgan wgan-gp lsgan otgan otgan-mlp"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=180.0, help="processor seconds of a run (default: %(default)g)")
    parser.add_argument("--width", type=int, default=128, help="units of a hidden layer; published: 512 (WGAN-GP)")
    parser.add_argument("--n-train", type=int, default=10_000, help="points to learn from")
    parser.add_argument("--grid", action="store_true", help="tune what fails at its published settings, on seed 0")
    parser.add_argument("--steps", choices=["published"], help="one run of each for its published steps, on the grid")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs/bench_gan.json"), help="default: %(default)s")
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables of the file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw FILE and FILE with _samples (.png, .svg, .pdf)")
    return parser.parse_args()


def chosen(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Problems and methods, as far as they are there."""
    from gan.problems import NAMES, available
    from gan.runs import METHODS

    for given, known in ((args.problems, NAMES), (args.methods, METHODS)):
        if unknown := set(given or ()) - set(known):
            sys.exit(f"bench_gan: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    problems = [name for name in args.problems or NAMES if available(name)]
    if "codes" in (args.problems or NAMES) and "codes" not in problems:
        say("codes is left out: OTGAN_DATA names no folder that holds mnist")
    return problems, list(args.methods or METHODS)


def do(tasks: list[Task], results: dict[str, Any], args: argparse.Namespace) -> None:
    """Run what the file does not hold yet, several at a time; every result is kept at once."""
    from gan import report
    from gan.runs import run

    done = {one["key"] for one in results["runs"]}
    tasks = [task for task in tasks if task.key not in done]
    if not tasks:
        return
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), limit_threads, (1,)) as pool:
        try:
            waiting = {pool.submit(run, task): task for task in tasks}
            for future in as_completed(waiting):
                record = future.result() | {name: results["machine"][name] for name in ("cpu", "versions")}
                results["runs"].append(record)
                report.write(args.out, results)
                final = ", ".join(f"{name} {value:.4g}" for name, value in record["final"].items())
                say(f"{record['key']}: {record['seconds']:.1f} s, {record['steps']:,} steps, {final}")
        except BaseException:
            for future in waiting:
                future.cancel()
            raise


def tuned(results: dict[str, Any], args: argparse.Namespace, problems: list[str], methods: list[str]) -> list[Task]:
    """Trials of what failed at its published settings on the first seed, and then the best of each, for all seeds.

    The published setting is one of those that are compared; where it is the best by either rule of
    :func:`gan.runs.best_of` there is nothing more to run.
    """
    from gan.runs import BASELINES, GRID, Task, best_of, failed, score

    trial = args.budget / 3
    lost = [
        run for run in selected(results, args)["runs"]
        if run["kind"] == "published" and run["seed"] == 0 and run["problem"] in problems and run["method"] in methods
        and run["method"] in BASELINES and failed(run)
    ]  # fmt: skip
    pairs = [(run["problem"], run["method"]) for run in lost]
    more = {"width": args.width, "n_train": args.n_train}
    trials = [Task(*pair, 0, "trial", trial, setting=setting, **more) for pair in pairs for setting in GRID]
    do(trials, results, args)
    by_key = {run["key"]: run for run in results["runs"]}
    tasks = []
    for pair, published in zip(pairs, lost, strict=True):
        tried = [published, *(by_key[task.key] for task in trials if (task.problem, task.method) == pair)]
        best = best_of(tried, trial)
        what = ", ".join(f"{name} {value:g}" for name, value in best["setting"].items()) or "published"
        say(f"{'/'.join(pair)}: best of {len(tried)} settings: {what}, score {score(best, trial)[0]:.3f}")
        if best is published:
            continue
        tasks += [
            Task(*pair, seed, "tuned", args.budget, setting=best["setting"], **more) for seed in range(args.seeds)
        ]
    return tasks


def selected(results: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The results without runs of another budget, width or number of points, which are no rows of one table."""
    runs = [
        run for run in results["runs"]
        if run["width"] == args.width and run["n_train"] == args.n_train
        and run["budget"] in (0.0, args.budget, args.budget / 3)
    ]  # fmt: skip
    if len(runs) < len(results["runs"]):
        say(f"{len(results['runs']) - len(runs)} runs of another budget, width or number of points are left out")
    return results | {"runs": runs}


def main() -> None:
    """Run, then print and draw."""
    args = arguments()
    limit_threads(1)
    from gan import report
    from gan.runs import BASELINES, Task

    results = report.read(args.out)
    if not args.table:
        problems, methods = chosen(args)
        results["machine"] = machine(1, ("otgan", "numpy", "torch", "POT"))
        more = {"width": args.width, "n_train": args.n_train}
        # Problem after problem, seed after seed: what is compared is measured on one machine, and a benchmark that is
        # cut short has all methods of the seeds that it did.
        for problem in problems:
            do([Task(problem, m, s, "published", args.budget if m in BASELINES else 0.0, **more)
                for s in range(args.seeds) for m in methods], results, args)  # fmt: skip
            if args.grid:
                do(tuned(results, args, [problem], methods), results, args)
        if args.steps:
            record = "grid" if "grid" in problems else problems[0]
            do([Task(record, m, 0, "steps", 0.0, **more) for m in methods if m in BASELINES], results, args)
    results = selected(results, args)
    if args.problems:
        results = results | {"runs": [run for run in results["runs"] if run["problem"] in args.problems]}
    print(f"{report.table(results)}\n\n{report.correlation_table(results)}\n\n{report.findings(results)}\n")
    print(report.legend(results))
    if args.plot:
        import matplotlib

        matplotlib.use("agg")
        for file in report.figures(results, args.plot):
            say(f"drawn: {file}")


if __name__ == "__main__":
    main()
