"""Fill in docs/results.md: its tables are made from benchmarks/results/*.json.

    python -m benchmarks.results_page [--check]
    python -m benchmarks.results_page [--demo FILE] [--evaluation FILE] [--modes FILE]

The page is prose with marked places, `<!-- NAME -->` to `<!-- end of NAME -->`; what lies between
the marks is replaced. The second form first stores results of `make demo` in benchmarks/results,
with hardware and date, and `--modes` draws the pictures of docs/images. `--check` writes nothing
and exits with 1 where the page is not current.
"""

import argparse
import datetime
import fnmatch
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import open_asqa_rows, real_rows, serving_rows
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.provenance import processor

ROOT = Path(__file__).resolve().parent.parent
MEASURED = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
IMAGES = ROOT / "docs" / "images"
MODES = ("joint", "audio", "text", "shuffled", "silence")
# File of benchmarks/results -> the command that writes it.
COMMANDS = {
    "certificate_*": "python -m benchmarks.certificate",
    "convert_memory": "python -m benchmarks.convert_memory",
    "demo": "make demo; python -m benchmarks.results_page --demo runs/demo/summary.json",
    "encoder_precision": "python -m benchmarks.encoder_precision --run RUN",
    "evaluate_*": "python -m benchmarks.evaluate --checkpoint RUN --data data/mini",
    "evaluation_mini": "python -m ltu_jax.evaluate --checkpoint RUN --modes joint --out OUT ...; "
    "python -m benchmarks.results_page --evaluation OUT/metrics.json",
    "evaluation_mini_modes": "make demo; "
    "python -m benchmarks.results_page --modes runs/demo/eval/metrics.json",
    "faults": "python -m tests.faults --report --long --json FILE",
    "features_*": "python -m benchmarks.features",
    "generate_*": "python -m benchmarks.generate",
    "first_answer": "python -m benchmarks.first_answer CLIP.wav",
    "gpu_not_run": "written by hand",
    "gradient_variance": "python -m benchmarks.gradient_variance --init-from RUN",
    "grouping_mini": "python -m benchmarks.grouping --init-from RUN --data data/mini",
    "input_pipeline_*": "python -m benchmarks.input_pipeline",
    "int8_gate": "python -m benchmarks.int8_gate --init-from RUN",
    "on_gpu": "benchmarks/on_gpu.sh run WHEELS OUT",
    "open_asqa_*": "python -m benchmarks.open_asqa",
    "open_ended_mini": "python -m benchmarks.open_ended_mini",
    "options_*": "python -m benchmarks.options",
    "overhead_*": "python -m benchmarks.overhead",
    "write_records": "python -m benchmarks.write_records",
    "single_rows_*": "python -m benchmarks.plan single_rows_v5e-16",
    "plan_*": "python -m benchmarks.plan [PRESET ...]",
    "real_answers": "python -m ltu_jax.make_pretrained; python -m benchmarks.real_answers",
    "real_tags": "python -m benchmarks.real_tags",
    "rehearsal": "python -m benchmarks.rehearsal --folder DIR",
    "resume_*": "python -m benchmarks.resume",
    "row_layouts_*": "python -m benchmarks.row_layouts (--modelled | --records DIR) --json FILE",
    "train_step_*": "python -m benchmarks.train_step",
    "json_schemas": "python -m benchmarks.json_schemas",
    "server_start_*": "python -m benchmarks.server_start --checkpoint runs/demo/stage3 --rounds 1",
    "serving": "python -m benchmarks.serving --rounds 1; python -m benchmarks.serving --toy "
    "--parts equality soak --questions 600 --soak-requests 3000",
    "ten_million_*": "python -m benchmarks.ten_million",
    "transcription_*": "python -m benchmarks.transcription",
}


# --- scores -----------------------------------------------------------------------------------


def demo(result: dict[str, Any]) -> str:
    """Tabulate each task of the demo in the five input modes."""
    rows = [
        [
            task,
            row["joint"]["n"],
            f"{row['chance']:.2f}",
            *(_interval(row[mode], task, digits=2) for mode in MODES),
        ]
        for task, row in result["tasks"].items()
    ]
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in result["seconds"].items())
    total = sum(result["seconds"].values()) / 60
    note = f" {result['note']}" if "note" in result else ""
    return _part(
        result,
        "value and 95 % interval (bootstrap; exact at 0 and 1)",
        _table(["task", "n", "chance", *MODES], rows),
        f"Seconds: {seconds}; in all {total:.1f} minutes, installation not counted.{note}",
    )


def evaluation(result: dict[str, Any]) -> str:
    """Tabulate the mini run by both rules: sampled by the paper's, greedy by the strict."""
    rows = []
    for name, row in result["rows"].items():
        for metric in dict.fromkeys(figure["metric"] for figure in row["figures"]):
            own = {
                (figure["rule"], figure["decoding"]): figure
                for figure in row["figures"]
                if (figure["metric"], figure["system"], figure["mode"])
                == (metric, "model", "joint")
            }
            paper, strict = own["paper", "sampling"], own["strict", "greedy"]
            rows.append(
                [
                    name,
                    metric,
                    f"{paper['value']:.3f} ± {paper['spread']:.3f}",
                    _interval(strict, name, digits=3),
                    f"{strict['differ']} of {strict['n']}",
                ]
            )
    columns = ["row", "metric", "paper, sampling (± over 3 draws)", "strict, greedy"]
    return _part(result, "joint mode", _table([*columns, "items scored apart (greedy)"], rows))


def transcription(result: dict[str, Any]) -> str:
    """Tabulate word error rates of our Whisper and that of `transformers`."""
    rows = [
        [
            *(row[name] for name in ("model", "setting", "batch")),
            f"{row['WER transformers']:.3f}",
            f"{row['WER ltu_jax']:.3f}",
            row["same texts"],
            "" if row["x transformers"] is None else f"{row['x transformers']:.2f}",
        ]
        for row in result["rows"]
    ]
    columns = ["Whisper", "setting", "batch", "WER, transformers", "WER, ltu_jax", "same texts"]
    about = f"{len(result['recordings'])} utterances, {result['audio_seconds']:.0f} s in all"
    return _part(result, about, _table([*columns, "times transformers' speed"], rows))


# --- weights ----------------------------------------------------------------------------------


def convert_memory(result: dict[str, Any]) -> str:
    """Tabulate memory and speed of conversions."""
    depths = sorted({row["layers"] for row in result["rows"]})
    rows = []
    for name, summary in result["summary"].items():
        own = {row["layers"]: row for row in result["rows"] if row["conversion"] == name}
        rows.append(
            [
                name,
                *(f"{own[depth]['peak_bytes'] / 1e9:.2f}" for depth in depths),
                f"{summary['projected_peak_bytes_at_32_layers'] / 1e9:.2f}",
                f"{own[depths[-1]]['mb_per_second']:.0f}",
                f"{summary['ratio_to_transformers']:.2f}",
            ]
        )
    columns = ["conversion", *(f"GB, {depth} layers" for depth in depths)]
    about = (
        f"Python and JAX alone are {result['start_bytes'] / 1e9:.2f} GB, the largest tensor is "
        f"{result['largest_tensor_bytes'] / 1e9:.2f} GB"
    )
    columns += ["projected to 32 layers", "MB/s", "peak / transformers'"]
    return _part(result, about, _table(columns, rows))


def certificate(result: dict[str, Any]) -> str:
    """Tabulate the largest errors of real weights in float32."""
    rows = []
    for made in result["certificates"]:
        modules = {row["module"]: row for row in made["modules"]}
        rows += [
            [made["weights"]["name"], name, f"{row['max_abs']:.1e}", f"{row['max_rel']:.1e}"]
            for name in ("encoder.ln_post", "logits")
            if made["dtype"] == "float32" and (row := modules.get(name))
        ]
    columns = ["weights", "output", "largest error", "of its largest value"]
    return _part(result, "float32", _table(columns, rows))


# --- plans and precision ----------------------------------------------------------------------


def plans() -> str:
    """Tabulate the committed plans, those by arithmetic marked."""
    rows = []
    for path in _files("plan_*"):
        plan = read_json(path)
        batch = plan["batch"]
        mark = " *" if plan["method"].startswith("arithmetic") else ""
        rows.append(
            [
                f"`:{path.stem.removeprefix('plan_')}`{mark}",
                f"{batch['rows']} x {batch['text_length']}",
                f"{batch['rows'] * batch['pairs_per_row']:.0f}",
                plan["compute"]["base_dtype"],
                f"{plan['peak_bytes_per_chip'] / 1e9:.1f}",
                "yes" if plan["fits"] else "no",
                f"{plan['est_step_seconds']:.3f}",
                f"{plan['pairs_per_second']:.0f}",
                f"{plan['mfu_bound']:.1%}",
                f"{plan['hours_for_stage']:.2f}",
            ]
        )
    columns = ["preset", "rows x text tokens", "pairs a step", "base", "GB a chip", "fits"]
    columns += ["s a step", "pairs/s", "MFU, at most", "stage 3, hours"]
    return _table(columns, rows) if rows else ""


def int8_gate(result: dict[str, Any]) -> str:
    """Tabulate what an int8 base does to the loss; float32 for scale."""
    rows = [
        [
            name,
            f"{int8['loss_percent']:+.3f} % {_bounds(int8['loss_percent_interval'])}",
            f"{int8['kl']:.5f} {_bounds(int8['kl_interval'], digits=5, sign='')}",
            f"{row['float32']['loss_percent']:+.3f} %",
            f"{row['float32']['kl']:.5f}",
        ]
        for name, row in result["from_bfloat16"].items()
        for int8 in [row["int8"]]
    ]
    limits = result["criterion"]
    about = (
        f"**{result['verdict']}**; limits fixed before: ±{limits['loss_percent']} % and "
        f"{limits['kl_nats_a_token']} nats, whole 95 % interval"
    )
    columns = ["input", "int8, loss", "int8, KL in nats a token", "float32, loss", "float32, KL"]
    return _part(result, about, _table(columns, rows))


def encoder_precision(result: dict[str, Any]) -> str:
    """Tabulate what bfloat16 features do to the loss."""
    rows = [
        [
            name,
            f"{run['errors']['bfloat16']['relative_worst_layer']:.1e}",
            f"{run['loss']:.4f}",
            f"{change['mean']:+.3f} % {_bounds([change['low'], change['high']])}",
        ]
        for name, run in sorted(result["runs"].items())
        for change in [run["loss_percent"]["bfloat16"]]
    ]
    verdict = "passed" if result["passed"] else "FAILED"
    about = f"**{verdict}**; limit fixed before: {result['limit_percent']} %"
    columns = ["run", "features, worst layer", "loss", "change of the loss"]
    return _part(result, about, _table(columns, rows))


# --- rows of several pairs --------------------------------------------------------------------


def row_layouts(result: dict[str, Any]) -> str:
    """Tabulate how each layout fills its rows."""
    rows = [
        [
            name,
            f"{row['pairs_per_step']:.0f}",
            f"{row['padding']:.1%}",
            f"{row['tflop_per_pair']:.2f}",
            f"{row['gain']:.2f}",
        ]
        for name, row in sorted(result["layouts"].items())
    ]
    columns = ["layout", "pairs a step", "padding", "TFLOP a pair", "gain over single rows"]
    return f"Counted on {result['date']}.\n\n{_table(columns, rows)}"


def gradient_variance(result: dict[str, Any]) -> str:
    """Tabulate the variance of a step's gradient by pairs a clip."""
    rows = [
        [
            row["pairs a clip"],
            row["clips"],
            f"{row['variance / squared norm']:.3f}",
            f"{row['times single']:.2f}",
            f"{row['worth, single pairs']:.0f}",
        ]
        for row in result["rows"]
    ]
    columns = ["pairs a clip", "clips", "variance / squared norm", "times single pairs'"]
    return _part(result, "256 pairs a step", _table([*columns, "as many single pairs"], rows))


def grouping(result: dict[str, Any]) -> str:
    """Tabulate models that were trained with grouped and with single rows."""
    columns = list(result["mean_and_spread"][0])
    rows = [[row[column] for column in columns] for row in result["mean_and_spread"]]
    about = f"{result['what']}; mean ± deviation over {len(result['seeds'])} seeds"
    return _part(result, about, _table(columns, rows))


# --- speed ------------------------------------------------------------------------------------

# Benchmark -> the columns that say what was measured, its rate, and how the names of those
# contenders begin whose fastest is the unit of the ratio.
_SPEED = {
    "train_step": (("contender",), "samples_per_second", "PyTorch"),
    "features": (("contender", "encoder", "seconds"), "clips_per_second", "transformers"),
    "generate": (("contender", "batch"), "tokens_per_second", "transformers"),
    "evaluate": (("contender",), "answers_per_second", "batch 1"),
}


def speed(name: str) -> str:
    """Tabulate one benchmark beside PyTorch, a table for each machine."""
    columns, rate, others = _SPEED[name]
    unit = others if others.startswith("batch") else "the fastest PyTorch"
    parts = []
    for result in _read(f"{name}_*"):
        rows = []
        for row in result["rows"]:
            beside = [
                other[rate]
                for other in result["rows"]
                if other["contender"].startswith(others)
                and all(other[column] == row[column] for column in columns[1:])
            ]
            cells = [row[column] for column in columns]
            rows.append([*cells, f"{row[rate]:.2f}", f"{row[rate] / max(beside):.2f}"])
        about = [result[key] for key in ("dtype", "what", "weights") if key in result]
        if "items" in result:
            about.append(f"{result['items']} items of the mini corpus")
        if unit != others and not any("oneDNN" in row["contender"] for row in result["rows"]):
            about.append("PyTorch through oneDNN was not tried")
        table = _table([*columns, rate.replace("_", " "), f"times {unit}"], rows)
        parts.append(_part(result, "; ".join(about), table))
    return "\n\n".join(parts)


def input_pipeline(result: dict[str, Any]) -> str:
    """Tabulate how fast batches are made."""
    rows = [
        [
            row["layout"],
            row["features"].replace("_", " "),
            row["from"],
            row["cores"],
            f"{row['clips_per_second']:.0f}",
            f"{row['x one core, clips_per_second']:.2f}",
            f"{row['cores_had']:.2f}",
            f"{row['cpu_ms_a_clip']:.1f}",
            f"{row['clips_per_second_alone']:.0f}",
            f"{row['x one core, clips_per_second_alone']:.2f}",
        ]
        for row in result["rows"]
    ]
    columns = ["rows", "features", "records", "cores", "clips/s", "times one core", "cores it had",
               "CPU ms a clip", "clips/s alone", "times one core, alone"]  # fmt: skip
    after = (
        f"Load {result['load_average'][0]:.0f}: other processes had their part of the cores. "
        "Alone: with cores to itself, by the CPU time of a clip and the share of time in which "
        "workers had a row to make (the kernel counts how long they wait for a core); where they "
        "had a small part of one, that share is near 1 whatever they do."
    )
    return _part(result, result["what"], _table(columns, rows), after)


def options(result: dict[str, Any]) -> str:
    """Tabulate time and memory of a small train step, one option of `config.compute` changed."""
    first = next(iter(result["options"].values()))
    rows = [
        [
            name,
            f"{row['seconds']:.3f}",
            f"{row['seconds'] / first['seconds']:.2f}",
            f"{(row['argument_bytes'] + row['temporary_bytes']) / 1e6:.0f}",
        ]
        for name, row in result["options"].items()
    ]
    columns = ["option", "s a step", "times the first", "MB, by the compiler"]
    return _part(result, "float32 unless it says otherwise", _table(columns, rows))


# --- reliability ------------------------------------------------------------------------------


def faults(result: dict[str, Any]) -> str:
    """Tabulate the trials of each guarantee."""
    rows = [
        [name, f"{count['passed']} of {count['tried']}", count["date"]]
        for name, count in result["guarantees"].items()
    ]
    return _part(result, f"{result['form']} form", _table(["guarantee", "passed", "date"], rows))


def rehearsal(result: dict[str, Any]) -> str:
    """Tabulate the steps of the rehearsal."""
    steps = result["steps"]
    rows = [
        [
            step["step"].replace("_", " "),
            f"{step['seconds'] / 60:.1f}",
            f"{step['peak_bytes'] / 1e9:.1f}",
            {True: "yes", False: "**no**", None: ""}[step.get("identical")],
            "yes" if step["ok"] else "**no**",
        ]
        for step in steps
    ]
    about = (
        f"{result['layers']} layers, {result['rows']:,} rows, {result['clips']} clips; "
        f"{sum(step['seconds'] for step in steps) / 60:.0f} minutes"
    )
    return _part(result, about, _table(["step", "minutes", "peak GB", "same bits", "ok"], rows))


def resume(result: dict[str, Any]) -> str:
    """Say how soon a run goes on."""
    return (
        f"At step {result['step']:,} of {result['pairs']:,} pairs a resumed command of the mini "
        "model (135M, Whisper tiny.en; reading and placing a base of 7B is not in it) has its\n"
        f"first batch {result['worst_first_batch_seconds']:.1f} s after its start at worst, "
        f"Python's own start apart ({len(result['rounds'])} rounds, {_where(result)})."
    )


def overhead(result: dict[str, Any]) -> str:
    """Say what checks cost."""
    low, high = result["guard_percent_95"]
    return (
        f"All checks together take at most {result['percent_at_most_95']:.2f} % of a train step. "
        f"With its guard a step takes {_more(low)} to {_more(high)} time\nthan without (95 % "
        f"interval of the median of {len(result['timings']['step']['seconds'])} alternating "
        f"rounds, size {result['size']}, {_where(result)})."
    )


def _more(percent: float) -> str:
    return f"{abs(percent):.1f} % {'less' if percent < 0 else 'more'}"


# --- serving ----------------------------------------------------------------------------------


def serving(result: dict[str, Any]) -> str:
    """Tabulate what the server was asked to hold, and what was found."""
    table = _table(serving_rows.COLUMNS, serving_rows.rows(result))
    return _part(result, "float32", table)


def server_start(result: dict[str, Any]) -> str:
    """Tabulate both starts of a server."""
    columns = ["what is kept", "first start, s", "second, s", "times sooner"]
    rows = [
        [way, *(f"{row[key]:.1f}" for key in ("first_seconds", "second_seconds", "ratio"))]
        for way, row in result["summary"].items()
    ]
    about = f"{result['model']}, rounds: {len(result['rounds'])}"
    return _part(result, about, _table(columns, rows))


def json_schemas(result: dict[str, Any]) -> str:
    """Say how many answers by JSON schema are of their schemas."""
    return (
        f"Of {result['requests']} answers by as many JSON schemas, drawn from {result['model']},\n"
        f"{result['parsed']} parse and {result['valid']} are of their schema ({_where(result)})."
    )


# --- Open-ASQA --------------------------------------------------------------------------------


def open_asqa(result: dict[str, Any]) -> str:
    """Tabulate a build of the published size: its time, its counts, and why they are others."""
    took = ["by", "step", "clips", "minutes", "CPU minutes", "GB of the largest process", "load"]
    of_source = ["source", "clips by the rules", "closed-ended", "clips by lists", "closed-ended",
                 "printed", "clips of the poster", "closed-ended"]  # fmt: skip
    of_sum = ["sum", "by the rules", "by lists", "printed"]
    of_task = ["source", "task", "by the rules", "printed", "why"]
    by_lists = open_asqa_rows.differences(result, open_asqa_rows.LISTS)
    said = (
        f"By lists of the printed sizes {len(by_lists)} counts of a task are not the printed ones."
    )
    tables = [
        open_asqa_rows.bounds(result),
        _table(of_sum, open_asqa_rows.totals(result)),
        said,
        _table(of_source, open_asqa_rows.sources(result)),
        _table(of_task, open_asqa_rows.differences(result, open_asqa_rows.RULES)),
    ]
    share = "" if result["share"] == 1 else f"{result['share']:.2%} of the published sizes, "
    about = f"{share}processes: {result['workers']}, no audio"
    return _part(result, about, _table(took, open_asqa_rows.steps(result)), "\n\n".join(tables))


def open_ended_mini(result: dict[str, Any]) -> str:
    """Tabulate what of a small model's replies can be used, by source, and why the rest cannot."""
    counts = ("clips", "replies that parse whole", "replies that were cut", "pairs")
    rows = [
        [name, *(own["generate"].get(key, 0) for key in counts), own["filter"]["accepted"]]
        for name, own in result["sources"].items()
    ]
    rows.append(["all", *(result.get(key, 0) for key in counts), result["accepted"]])
    columns = ["prompt of", "clips", "replies that parse whole", "cut", "pairs", "accepted"]
    verdict = {True: "**passed**", False: "**FAILED**", None: "too few clips to tell"}
    least, asked = result["least"], result["asked"]
    drawn = {"temperature": asked["temperature"], **asked.get("extra", {})}
    about = (
        f"{result['model']}, {asked['pairs']} pairs a clip, "
        f"{', '.join(f'{name} {value}' for name, value in drawn.items())}, {result['all replies']} "
        f"replies: {verdict[result['passed']]}; fixed before: of {least['clips']} clips or more "
        f"{least['whole']:.0%} of the replies parse whole, {least['accepted']} pairs are accepted"
    )
    why = [["reply without use", *one] for one in result["given up"].items()]
    why += [["pair refused", *one] for one in result["refused"].items()]
    refusals = _table(["what", "reason", "how many"], why)
    return _part(result, about, _table(columns, rows), refusals)


# --- the page ---------------------------------------------------------------------------------


def commands() -> str:
    """Tabulate which command writes which file."""
    rows = [[f"`{name}.json`", f"`{command}`"] for name, command in COMMANDS.items()]
    return _table(["file", "command"], rows)


def real_tags(result: dict[str, Any]) -> str:
    """Tabulate the tag head on the folds of real recordings, and on their groups."""
    table = _table(real_rows.COLUMNS, real_rows.folds(result))
    groups = _table(real_rows.GROUP_COLUMNS, real_rows.groups(result))
    about = "top-1 over 18 groups of recordings of held-out packages, a recording counted once"
    return _part(result, about, table, f"{real_rows.unlearnt(result)}\n\n{groups}")


def real_answers(result: dict[str, Any]) -> str:
    """Tabulate what the model of the package answers on what was held out."""
    hearings = _table(real_rows.HEARING_COLUMNS, real_rows.hearings(result))
    bars = _table(real_rows.BAR_COLUMNS, real_rows.held(result))
    modes = ("joint", "audio", "text", "shuffled", "silence")
    tasks = _table(("row", "n", *modes), real_rows.tasks(result))
    about = f"{result['recordings']} recordings of held-out packages, each counted once"
    return _part(result, about, hearings, f"{bars}\n\n{tasks}")


def first_answer(result: dict[str, Any]) -> str:
    """Tabulate how long a newcomer waits for an answer of the package's model."""
    parts = ", ".join(f"{name} {value:.0f}" for name, value in result["seconds"].items())
    bars = _table(real_rows.BAR_COLUMNS, real_rows.held(result))
    return _part(result, f"seconds: {parts}", bars)


def not_run(result: dict[str, Any]) -> str:
    """Say what was not run."""
    names = ", ".join(f"`{name}`" for name in result["commands"])
    return f"GPU: {result['gpu']}. Those for one: {names}."


# Place of the page -> what fills it.
_PLACES: dict[str, Callable[[], str]] = {
    "plans": plans,
    **{name: lambda name=name: speed(name) for name in _SPEED},
    "commands": commands,
}
# The same, of one or more result files each.
_OF_FILES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "demo": ("demo", demo),
    "evaluation": ("evaluation_mini", evaluation),
    "transcription": ("transcription_*", transcription),
    "convert_memory": ("convert_memory", convert_memory),
    "certificate": ("certificate_*", certificate),
    "int8_gate": ("int8_gate", int8_gate),
    "encoder_precision": ("encoder_precision", encoder_precision),
    "row_layouts": ("row_layouts_open_asqa_model", row_layouts),
    "gradient_variance": ("gradient_variance", gradient_variance),
    "grouping": ("grouping_mini", grouping),
    "input_pipeline": ("input_pipeline_*", input_pipeline),
    "options": ("options_*", options),
    "faults": ("faults", faults),
    "real_answers": ("real_answers", real_answers),
    "first_answer": ("first_answer", first_answer),
    "real_tags": ("real_tags", real_tags),
    "rehearsal": ("rehearsal", rehearsal),
    "resume": ("resume_*", resume),
    "overhead": ("overhead_*", overhead),
    "serving": ("serving", serving),
    "server_start": ("server_start_*", server_start),
    "json_schemas": ("json_schemas", json_schemas),
    "open_asqa": ("open_asqa_*", open_asqa),
    "open_ended_mini": ("open_ended_mini", open_ended_mini),
    "not_run": ("gpu_not_run", not_run),
}


def filled(text: str) -> str:
    """Return the page `text` with every marked place made anew.

    Raises:
        KeyError: a mark that nothing fills.
    """

    def place(found: re.Match) -> str:
        name = found[1]
        if name in _PLACES:
            made = _PLACES[name]()
        else:
            pattern, write = _OF_FILES[name]
            made = "\n\n".join(write(result) for result in _read(pattern))
        return f"<!-- {name} -->\n{made or 'Not measured yet.'}\n<!-- end of {name} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end of \1 -->", place, text, flags=re.DOTALL)


def unlisted() -> list[str]:
    """Name the files of benchmarks/results that no entry of `COMMANDS` covers."""
    stems = [path.stem for path in _files("*")]
    return [stem for stem in stems if not any(fnmatch.fnmatch(stem, name) for name in COMMANDS)]


def _files(pattern: str) -> list[Path]:
    return sorted(MEASURED.glob(f"{pattern}.json"))


def _read(pattern: str) -> list[dict[str, Any]]:
    return [read_json(path) for path in _files(pattern)]


def _where(result: dict[str, Any]) -> str:
    """Return hardware and date of a result."""
    hardware = result["hardware"]
    if isinstance(hardware, dict):
        device = "" if hardware["device"] == "cpu" else f"{hardware['device']}, "
        hardware = device + hardware["processor"]
    return f"{hardware}, {result['date']}"


def _part(result: dict[str, Any], about: str, table: str, after: str = "") -> str:
    """Return where and how something was measured, its table, and a line after it."""
    return "\n\n".join(part for part in (f"{_where(result)}: {about}.", table, after) if part)


def _interval(cell: dict[str, Any], task: str, *, digits: int) -> str:
    """Return a value with its interval; the exact one where all answers were alike.

    Each item of such a row of the mini corpus asks about a clip of its own. Word error rates are no
    shares of answers.
    """
    from ltu_jax.evaluation.metrics.bootstrap import binomial

    low, high = cell["low"], cell["high"]
    if low == high and not task.startswith("spoken_text"):
        low, high = binomial(cell["value"], cell["n"])
    return f"{cell['value']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _bounds(interval: Sequence[float], *, digits: int = 3, sign: str = "+") -> str:
    return "[" + ", ".join(f"{bound:{sign}.{digits}f}" for bound in interval) + "]"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def _draw(result: dict[str, Any]) -> None:
    """Draw docs/images/evaluation_*.png from a run in all modes."""
    from ltu_jax.evaluation.report import plots

    plots.bars(result, IMAGES / "evaluation_mini.png")
    plots.grounding(result, IMAGES / "evaluation_grounding.png")


def without_home(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result whose checkpoint is named from runs/ on, wherever that folder lies."""
    config = result.get("config", {})
    if "checkpoint" not in config:
        return result
    checkpoint = re.sub(r"^.*/(?=runs/)", "", config["checkpoint"])
    return result | {"config": config | {"checkpoint": checkpoint}}


def main() -> None:
    """Store what is given, then write or check the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results_page", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--demo", help="runs/demo/summary.json of a finished demo")
    parser.add_argument("--evaluation", help="metrics.json of the mini run in both decodings")
    parser.add_argument("--modes", help="metrics.json of the mini run in all modes; pictures too")
    parser.add_argument("--check", action="store_true", help="exit 1 if the page is not current")
    given = parser.parse_args()
    stored = {
        "demo": given.demo,
        "evaluation_mini": given.evaluation,
        "evaluation_mini_modes": given.modes,
    }
    date = datetime.date.today().isoformat()
    for name, source in stored.items():
        if source:
            result = read_json(source) | {"hardware": processor(), "date": date}
            write_json(MEASURED / f"{name}.json", without_home(result))
    if given.modes:
        _draw(read_json(MEASURED / "evaluation_mini_modes.json"))
    text = PAGE.read_text()
    if given.check:
        sys.exit(filled(text) != text)
    PAGE.write_text(filled(text))


if __name__ == "__main__":
    main()
