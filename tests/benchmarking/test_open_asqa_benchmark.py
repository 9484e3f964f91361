"""The second build of the benchmark of Open-ASQA, by lists, is of what the first one built."""

import tomllib
from pathlib import Path

from benchmarks import open_asqa
from benchmarks.published_tables import Sizes
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
