"""Seconds and samples to a chi2, this library against POT and OTT-JAX: ``otgan bench semidiscrete [--quick]``.

Semi-discrete problems in dimension 10 to 1000. Each method runs on the same targets and the same cores; chi2 of its
cell masses is measured alike, on samples that no method saw, while its stopwatch stands still. Settings of the peers
(and of Adam) are chosen by trials over a grid, the problem's own; `semidiscrete/` says how each method is called.

Results are added to a JSON file after each method of each problem: what is there is not run again, so an interrupted
benchmark goes on where it was. Table and figure are made of the file; `--table` only prints it. In full it takes about
forty minutes on two cores, `--quick` (a tenth of the targets) about two or three; neither is to share its cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from results import limit_threads, machine, say

PACKAGES = ("otgan", "numpy", "torch", "POT", "jax", "ott-jax")


def limit_cores(threads: int) -> None:
    """The same cores for all, before anything starts a pool of threads."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if hasattr(os, "sched_setaffinity"):  # XLA has no setting: it takes the cores that it may use
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    limit_threads(threads)


def run_method(problem: Any, method: Any, results: dict[str, Any]) -> None:
    """Short trials over the grid, longer ones of the best, then the best at full length; adds to ``results``.

    Where early trials mislead about the batch, each size has its own.
    """
    from semidiscrete.runs import Recorder, as_record, rank

    def one(setting: dict[str, Any], recorder: Recorder, trial: bool = True) -> tuple[float, float]:
        method.run(problem, setting, recorder)
        records.append(as_record(problem, method.name, setting, trial, recorder, method.how))
        shown = ", ".join(f"{name} {value}" for name, value in setting.items()) or "defaults"
        end = recorder.curve[-1] if recorder.curve else None
        said = "not one step" if end is None else f"chi2 {end.chi2:.3g} after {end.seconds:.3g} s, "
        said += "" if end is None else f"{end.samples / problem.n:.1f} n samples, {end.empty} empty"
        say(f"  {method.name}{' trial' if trial else ''}: {shown}: {said}")
        return rank(recorder.curve)

    records: list[dict[str, Any]] = []
    grid = method.grid(problem)
    parts = (
        [[s for s in grid if s["batch"] == size] for size in {s["batch"]: 0 for s in grid}] if method.parts else [grid]
    )
    for settings in parts:
        for keep, length in ((3 if len(parts) == 1 else 2, 0.5), (1, 2.0)):
            if len(settings) > keep:
                cap = length * method.patience * problem.trial
                order = [one(setting, Recorder(problem, cap, 4, 20.0, thorough=False)) for setting in settings]
                settings = [settings[place] for place in sorted(range(len(order)), key=order.__getitem__)[:keep]]
        # To measure takes seconds where there are many targets.
        one(settings[0], Recorder(problem, problem.cap, checkpoints=20 if problem.n <= 20_000 else 12), trial=False)
    results["runs"] += records


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these: newton adam sgd drag ott")
    parser.add_argument("--quick", action="store_true", help="a tenth of the targets, a twentieth of the time")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file; default runs/bench_semidiscrete[_quick].json")
    parser.add_argument("--table", action="store_true", help="run nothing, print the table of the file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw chi2 against seconds (.png, .svg, .pdf)")
    args = parser.parse_args()
    args.out = args.out or Path(f"runs/bench_semidiscrete{'_quick' if args.quick else ''}.json")
    return args


def run(args: argparse.Namespace, results: dict[str, Any]) -> None:
    """All problems and methods that the file does not hold yet."""
    from semidiscrete import ott_jax, ours, pot, report
    from semidiscrete.problems import NAMES, data_folder, make

    methods = {"newton": ours.NEWTON, "adam": ours.ADAM, "sgd": pot.SGD, "drag": pot.DRAG, "ott": ott_jax.ADAM}
    for given, known in ((args.problems, NAMES), (args.methods, tuple(methods))):
        if unknown := set(given or ()) - set(known):
            sys.exit(f"bench_semidiscrete: there is no {', '.join(sorted(unknown))}; there are {', '.join(known)}.")
    if results["runs"] and results.get("quick", args.quick) != args.quick:
        sys.exit(f"bench_semidiscrete: {args.out} holds results of the other size: choose another --out.")
    now = machine(args.threads, PACKAGES)  # an interrupted benchmark may go on without a peer that it had
    now["versions"] = results["machine"].get("versions", {}) | now["versions"]
    results |= {"quick": args.quick, "machine": now}
    for key, method in list(methods.items()):
        if (args.methods and key not in args.methods) or (why := method.missing()):
            if not args.methods or key in args.methods:
                say(f"{method.name} is left out: {why}")
            del methods[key]
    for name in args.problems or NAMES:
        problem = make(name, args.quick)
        if problem is None:
            say(f"{name} is left out: there is no {data_folder() / 'mnist'}; OTGAN_DATA names the folder of data")
            continue
        say(f"{name}: {problem.source!r}, n = {problem.n:,}, d = {problem.dim}, load {os.getloadavg()[0]:.1f}")
        done = {run["method"] for run in results["runs"] if run["problem"] == name}
        for method in methods.values():
            if method.name not in done:
                run_method(problem, method, results)
                if method is ours.NEWTON:
                    results["efficiency"][f"{name}/{method.name}"] = method.efficiency(problem)
                report.write(args.out, results)


def main() -> None:
    """Run, then print and draw."""
    args = arguments()
    limit_cores(args.threads)
    from semidiscrete import report

    results = report.read(args.out)
    if not args.table:
        run(args, results)
    print(report.table(results))
    print(f"\n{report.legend(results)}")
    if args.plot:
        import matplotlib

        matplotlib.use("agg")
        report.figure(results).savefig(args.plot)


if __name__ == "__main__":
    main()
