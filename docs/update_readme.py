"""Rewrite the made parts of README.md: what was measured.

    python docs/update_readme.py [runs/demo/summary.json] [--evaluation METRICS] [--modes METRICS]

With a path, first stores that file in `benchmarks/results/` with hardware and date.
`--check` changes nothing and exits with 1 if the README differs.
"""

import argparse
import datetime
import os
import platform
import sys
from pathlib import Path

from ltu_jax.core.files import read_json, write_json

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "benchmarks" / "results"
RESULTS = MEASURED / "demo.json"
INT8_GATE = MEASURED / "int8_gate.json"
EVALUATION = MEASURED / "evaluation_mini.json"
MODES_RUN = MEASURED / "evaluation_mini_modes.json"
MODES = ("joint", "audio", "text", "shuffled", "silence")


def numbers() -> str:
    """The stored demo results as a markdown table."""
    if not RESULTS.exists():
        return "Not measured yet."
    result = read_json(RESULTS)
    lines = [
        f"Measured on {result['date']}, {result['hardware']}; value and 95 % interval (bootstrap; "
        "exact at 0 and 1).",
        "",
        f"| task | n | chance | {' | '.join(MODES)} |",
        f"|---|---|---|{'---|' * len(MODES)}",
    ]
    for task, row in result["tasks"].items():
        cells = [
            f"{row[mode]['value']:.2f} "
            f"[{', '.join(f'{bound:.2f}' for bound in bounds(row[mode], task))}]"
            for mode in MODES
        ]
        n = row["joint"]["n"]
        lines.append(f"| {task} | {n} | {row['chance']:.2f} | {' | '.join(cells)} |")
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in result["seconds"].items())
    total = sum(result["seconds"].values()) / 60
    note = f" {result['note']}" if "note" in result else ""
    lines += [
        "",
        f"Seconds: {seconds}; in all {total:.1f} minutes, installation not counted.{note}",
    ]
    return "\n".join(lines)


def bounds(cell: dict, task: str) -> tuple[float, float]:
    """The interval of a stored figure; the exact one where all of its answers were alike.

    Each item of such a row of the mini corpus asks about a clip of its own. Word error rates are no
    shares of answers.
    """
    from ltu_jax.evaluation.metrics.bootstrap import binomial

    if cell["low"] == cell["high"] and not task.startswith("spoken_text"):
        return binomial(cell["value"], cell["n"])
    return cell["low"], cell["high"]


def conversions() -> str:
    """What `benchmarks/convert_memory.py` and `benchmarks/certificate.py` measured."""
    memory, parity = (MEASURED / f"{name}.json" for name in ("convert_memory", "certificate_cpu"))
    if not memory.exists() or not parity.exists():
        return "Not measured yet."
    result = read_json(memory)
    depths = sorted({row["layers"] for row in result["rows"]})
    lines = [
        f"Synthetic checkpoints with the tensor shapes of 7B, float16, {depths[0]} and "
        f"{depths[-1]} layers ({result['hardware']}, {result['date']}, `python -m "
        "benchmarks.convert_memory`): peak resident memory, of which Python and JAX alone are "
        f"{result['start_bytes'] / 1e9:.2f} GB and the largest tensor "
        f"{result['largest_tensor_bytes'] / 1e9:.2f} GB.",
        "",
        f"| conversion | {' | '.join(f'GB, {n} layers' for n in depths)} | projected to 32 layers "
        "| MB/s | peak / transformers' |",
        f"|---|{'---|' * len(depths)}---|---|---|",
    ]
    for name, summary in result["summary"].items():
        rows = {row["layers"]: row for row in result["rows"] if row["conversion"] == name}
        peaks = " | ".join(f"{rows[n]['peak_bytes'] / 1e9:.2f}" for n in depths)
        lines.append(
            f"| {name} | {peaks} | {summary['projected_peak_bytes_at_32_layers'] / 1e9:.2f} | "
            f"{rows[depths[-1]]['mb_per_second']:.0f} | {summary['ratio_to_transformers']:.2f} |"
        )
    lines += ["", _certificates(read_json(parity))]
    return "\n".join(lines)


def _certificates(result: dict) -> str:
    """Largest errors of the certificates, absolute and relative to the module's largest value."""
    found = []
    for made in result["certificates"]:
        if made["dtype"] != "float32":
            continue
        rows = {row["module"]: row for row in made["modules"]}
        ends = [rows[name] for name in ("encoder.ln_post", "logits") if name in rows]
        shown = ", ".join(
            f"{row['module']} {row['max_abs']:.1e} ({row['max_rel']:.1e})" for row in ends
        )
        found.append(f"{made['weights']['name']}: {shown}")
    return (
        "Real weights against `transformers` in float32 on CPU, largest error and, in brackets, "
        "the same divided by the largest value of that output "
        "(`python -m benchmarks.certificate`): "
        f"{'; '.join(found)}. No GPU has been tried."
    )


def plans() -> str:
    """The committed plans of full-size stage 3, by `benchmarks/plan.py`."""
    made = {
        path.stem.removeprefix("plan_"): read_json(path)
        for path in sorted(MEASURED.glob("plan_*.json"))
    }
    if not made:
        return "Not planned yet."
    as_packed = all("filled_text" in plan["batch"] for plan in made.values())
    rows = "and for rows as they fill" if as_packed else "and for full rows"
    lines = [
        "Estimates of the TPU compiler for full-size stage 3 (7B, Whisper large on the fly), not "
        f"measurements, {rows} (docs/planner.md says what else they leave out): "
        "`python benchmarks/plan.py` makes them again.",
        "",
        "| slice | rows x text tokens | pairs a step | base | GB a chip | s a step | pairs/s "
        "| MFU bound | stage 3, hours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, plan in made.items():
        batch = plan["batch"]
        lines.append(
            f"| {name.replace('_', ', ')} | {batch['rows']} x {batch['text_length']} | "
            f"{batch['rows'] * batch['pairs_per_row']:.0f} | {plan['compute']['base_dtype']} | "
            f"{plan['peak_bytes_per_chip'] / 1e9:.1f} | {plan['est_step_seconds']:.3f} | "
            f"{plan['pairs_per_second']:.0f} | {plan['mfu_bound']:.1%} | "
            f"{plan['hours_for_stage']:.2f} |"
        )
    if INT8_GATE.exists():
        lines += ["", _int8_gate(read_json(INT8_GATE))]
    return "\n".join(lines)


def _int8_gate(gate: dict) -> str:
    """Criterion, spread and verdict of the int8 base in a sentence for each kind of input."""
    said = [
        f"over {name} the loss moves by {row['int8']['loss_percent']:+.3f} % "
        f"[{low:+.3f}, {high:+.3f}], KL {row['int8']['kl']:.5f} nats a token "
        f"[{least:.5f}, {most:.5f}] "
        f"(float32: {row['float32']['loss_percent']:+.3f} %, KL {row['float32']['kl']:.5f})"
        for name, row in gate["from_bfloat16"].items()
        for low, high in [row["int8"]["loss_percent_interval"]]
        for least, most in [row["int8"]["kl_interval"]]
    ]
    limits = gate["criterion"]
    return (
        f"int8 base against bfloat16, same parameters: **{gate['verdict']}**. {'; '.join(said)}. "
        f"Limits fixed before: +-{limits['loss_percent']} % and {limits['kl_nats_a_token']} nats, "
        f"whole 95 % interval (mini model, {gate['hardware']['processor']}, {gate['date']}, "
        "`python -m benchmarks.int8_gate`)."
    )


def evaluation() -> str:
    """The mini run by both rules: sampling by the paper's, greedy by the strict ones."""
    if not EVALUATION.exists():
        return "Not measured yet."
    result = read_json(EVALUATION)
    lines = [
        f"Joint mode, {result['date']}, {result['hardware']} (`python -m ltu_jax.evaluate "
        "--checkpoint runs/demo/stage3 --modes joint --out runs/mini_joint`):",
        "",
        "| row | metric | paper, sampling (± over 3 draws) | strict, greedy "
        "| items scored apart (greedy) |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        for metric in dict.fromkeys(figure["metric"] for figure in row["figures"]):
            own = {
                (figure["rule"], figure["decoding"]): figure
                for figure in row["figures"]
                if (figure["metric"], figure["system"], figure["mode"])
                == (metric, "model", "joint")
            }
            paper, strict = own["paper", "sampling"], own["strict", "greedy"]
            lines.append(
                f"| {name} | {metric} | {paper['value']:.3f} ± {paper['spread']:.3f} | "
                f"{strict['value']:.3f} "
                f"[{', '.join(f'{bound:.3f}' for bound in bounds(strict, name))}] | "
                f"{strict['differ']} of {strict['n']} |"
            )
    return "\n".join(lines)


def pictures() -> None:
    """Draw docs/images/evaluation_*.png from the stored run in all modes."""
    from ltu_jax.evaluation import plots, report

    result, folder = read_json(MODES_RUN), ROOT / "docs" / "images"
    report.plot(result, folder / "evaluation_mini.png")
    plots.grounding(result, folder / "evaluation_grounding.png")


def transcription() -> str:
    """Word error rates of our Whisper and that of `transformers` on real speech."""
    path = MEASURED / "transcription_cpu-amd.json"
    if not path.exists():
        return "Not measured yet."
    result = read_json(path)
    lines = [
        f"{len(result['recordings'])} utterances, {result['audio_seconds']:.0f} s "
        f"({result['hardware']['processor']}, {result['date']}, "
        "`python -m benchmarks.transcription`):",
        "",
        "| Whisper | setting | batch | WER, transformers | WER, ltu_jax | same texts "
        "| times transformers' speed |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        speed = row["x transformers"]
        lines.append(
            f"| {row['model']} | {row['setting']} | {row['batch']} | "
            f"{row['WER transformers']:.3f} | {row['WER ltu_jax']:.3f} | {row['same texts']} | "
            f"{'' if speed is None else f'{speed:.2f}'} |"
        )
    return "\n".join(lines)


# Benchmark -> the columns that say what was measured, its rate, how the names begin that it is
# compared with, and what the ratio is called.
SPEED = {
    "train_step": (("contender",), "samples_per_second", "PyTorch", "the fastest PyTorch"),
    "features": (
        ("contender", "encoder", "seconds"),
        "clips_per_second",
        "transformers",
        "the fastest PyTorch",
    ),
    "generate": (
        ("contender", "batch"),
        "tokens_per_second",
        "transformers",
        "the fastest PyTorch",
    ),
    "evaluate": (("contender",), "answers_per_second", "batch 1", "batch 1"),
}


def speed() -> str:
    """What the benchmarks beside PyTorch measured, a table each for every maker of CPUs."""
    found = []
    for name in SPEED:
        for path in sorted(MEASURED.glob(f"{name}_cpu-*.json")):
            found += ["", *_speed_table(name, read_json(path))]
    return "\n".join(found[1:]) or "Not measured yet."


def _speed_table(name: str, result: dict) -> list[str]:
    columns, rate, others, called = SPEED[name]
    titles = [*columns, rate.replace("_", " "), f"times {called}"]
    about = f" {result['what']}." if "what" in result else ""
    weights = f" Weights: {result['weights']}." if "weights" in result else ""
    rows = result["rows"]
    untried = called.endswith("PyTorch") and not any("oneDNN" in row["contender"] for row in rows)
    note = " PyTorch through oneDNN was not tried." if untried else ""
    lines = [
        f"`python -m benchmarks.{name}`, float32 ({result['hardware']['processor']}, "
        f"{result['date']}):{about}{weights}{note}",
        "",
        f"| {' | '.join(titles)} |",
        f"|{'---|' * len(titles)}",
    ]
    for row in rows:
        same = [
            other[rate]
            for other in rows
            if other["contender"].startswith(others)
            and all(other[column] == row[column] for column in columns[1:])
        ]
        cells = [*(str(row[column]) for column in columns), f"{row[rate]:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {row[rate] / max(same):.2f} |")
    return lines


def reliability() -> str:
    """The counts of `python -m tests.faults`, and what checks and resuming cost."""
    faults, resume, overhead = (
        MEASURED / f"{name}.json" for name in ("faults", "resume_cpu-amd", "overhead_cpu-amd")
    )
    found = []
    if faults.exists():
        result = read_json(faults)
        counts = ", ".join(
            f"{name} {count['passed']} of {count['tried']}"
            for name, count in result["guarantees"].items()
        )
        found.append(
            f"- Trials that passed ({result['form']} form, {result['hardware']}, "
            f"{result['date']}, `python -m tests.faults --report --long`): {counts}."
        )
    if resume.exists():
        result = read_json(resume)
        found.append(
            f"- At step {result['step']:,} of {result['pairs']:,} pairs a resumed command of the "
            "mini model (135M, Whisper tiny.en: reading and placing the base of a 7B is not in it) "
            f"has its first batch {result['worst_first_batch_seconds']:.1f} s after its start at "
            f"worst, Python's own start apart ({len(result['rounds'])} rounds, "
            f"{result['hardware']['processor']}, {result['date']}, `python -m benchmarks.resume`)."
        )
    if overhead.exists():
        result = read_json(overhead)
        low, high = result["guard_percent_95"]
        found.append(
            f"- All checks together take at most {result['percent_at_most_95']:.2f} % of a train "
            f"step. With its guard a step takes {_more(low)} to {_more(high)} time than without "
            f"(95 % interval of the median of "
            f"{len(result['timings']['step']['seconds'])} alternating rounds, size "
            f"{result['size']}, {result['hardware']['processor']}, {result['date']}, "
            "`python -m benchmarks.overhead`)."
        )
    return "\n".join(found) or "Not measured yet."


def _more(percent: float) -> str:
    return f"{abs(percent):.1f} % {'less' if percent < 0 else 'more'}"


def hardware() -> str:
    """Processor and core count of this machine."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return f"{model}, {os.cpu_count()} cores"


def rewritten(text: str) -> str:
    """`text` with the made parts made anew between their markers."""
    made = {
        "demo numbers": numbers(),
        "convert numbers": conversions(),
        "plan numbers": plans(),
        "speed numbers": speed(),
        "reliability numbers": reliability(),
        "evaluation numbers": evaluation(),
        "transcription numbers": transcription(),
    }
    for name, block in made.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}\n{block}\n{end}{tail}"
    return text


def main() -> None:
    """Store, rewrite or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("summary", nargs="?", help="runs/demo/summary.json of a finished demo")
    parser.add_argument("--check", action="store_true", help="exit 1 if the README differs")
    parser.add_argument("--evaluation", help="metrics.json of the mini run in both decodings")
    parser.add_argument("--modes", help="metrics.json of the mini run in all modes; pictures too")
    arguments = parser.parse_args()
    given = {
        RESULTS: arguments.summary,
        EVALUATION: arguments.evaluation,
        MODES_RUN: arguments.modes,
    }
    for path, source in given.items():
        if source:
            date = datetime.date.today().isoformat()
            write_json(path, read_json(source) | {"hardware": hardware(), "date": date})
    if arguments.modes:
        pictures()
    readme = ROOT / "README.md"
    text = readme.read_text()
    wanted = rewritten(text)
    if arguments.check:
        sys.exit(wanted != text)
    readme.write_text(wanted)


if __name__ == "__main__":
    main()
