"""The second build of the benchmark of Open-ASQA, by lists, is of what the first one built."""

import dataclasses
import tomllib
from pathlib import Path

import numpy as np

from benchmarks import open_asqa, open_asqa_rows, published_tables
from benchmarks.published_tables import Sizes
from data_pipelines.open_asqa import __main__
from data_pipelines.open_asqa.build_folder import BUILD, CLIPS, BuildFolder
from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import write_jsonl


def test_lists_are_of_the_sources_that_were_built(tmp_path):
    tables = tmp_path / "tables"
    (tables / "voxceleb2_official").mkdir(parents=True)
    folder = BuildFolder(tmp_path / "published")
    dataset = "vggsound_train"
    lines = [{"clip_id": f"clip {number}", "dataset": dataset} for number in range(5)]
    write_jsonl(folder.file("vggsound", CLIPS), lines)
    write_jsonl(folder.file("joint_audioset", CLIPS), [{"clip_id": "x", "dataset": "unprinted"}])
    write_json(folder.root / BUILD, {"seed": 0, "sources": ["vggsound", "joint_audioset"]})
    share = 3 / open_asqa.printed_clips()[dataset]
    path = open_asqa.official_sources(tables / "sources.toml", tmp_path, Sizes(), share=share)
    written = tomllib.loads(path.read_text())
    assert {name: table["metadata"] for name, table in written.items()} == {
        "vggsound": str(tables / "vggsound"),
        "joint_audioset": str(tables / "audioset"),
    }
    assert "clips" not in written["joint_audioset"]
    listed = Path(written["vggsound"]["clips"]).read_text().splitlines()
    assert len(listed) == 3 and set(listed) <= {line["clip_id"] for line in lines}


def test_every_list_has_the_printed_number_of_clips(tmp_path):
    """VoxCeleb2's, too, which is drawn from a table of its own."""
    share, printed = 0.002, open_asqa.printed_clips()["voxceleb_tr"]
    sizes = dataclasses.replace(Sizes().of(share), aged_videos=40)  # so few spread more widely
    tables = tmp_path / "tables"
    (tables / "voxceleb2").mkdir(parents=True)
    published_tables.voxceleb2(tables / "voxceleb2", sizes, np.random.default_rng(0))
    text = f'[voxceleb2]\nmetadata = "{tables / "voxceleb2"}"\n'
    (tables / "sources.toml").write_text(text)
    command = ["build", "--sources", str(tables / "sources.toml"), "--out"]
    __main__.command([*command, str(tmp_path / "published")])
    by_rules = list(BuildFolder(tmp_path / "published").clips("voxceleb2"))
    path = open_asqa.official_sources(tables / "sources.toml", tmp_path, sizes, share=share)
    __main__.command(["build", "--sources", str(path), "--out", str(tmp_path / "official")])
    by_lists = list(BuildFolder(tmp_path / "official").clips("voxceleb2"))
    assert len(by_rules) < len(by_lists) == round(printed * share) == 214


def test_a_step_beyond_its_bound_is_said_to_be():
    names = ("build", "findings and questions", "statistics", "merge", "statistics of the rows")
    took = {"seconds": 60 * 25, "cpu_seconds": 60.0, "peak_bytes": 1.9e9, "load_average": 2.0}
    made = {
        which: {
            "steps": {name: dict(took) for name in sorted(names)},
            "counts": {"sources": {"a": {"clips": 3}, "b": {"clips": 4}}},
        }
        for which in (open_asqa_rows.RULES, open_asqa_rows.LISTS)
    }
    rows = open_asqa_rows.steps(made)
    assert [row[1] for row in rows] == [*names, *names]
    assert rows[5] == ["lists", "build", "7", "25.0", "1.0", "1.90", "2"]
    assert "**NOT kept** (75," in open_asqa_rows.bounds(made)
    steps = made[open_asqa_rows.RULES]["steps"]
    for name in names:
        steps[name]["seconds"] = 60 * 20
    assert "NOT" not in open_asqa_rows.bounds(made)  # 60 minutes: what no bound is for counts not
    steps["merge"]["peak_bytes"] = 2.1e9
    assert "**NOT kept** (2.10)" in open_asqa_rows.bounds(made)
