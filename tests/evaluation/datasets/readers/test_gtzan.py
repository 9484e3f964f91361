"""GTZAN in miniatures of both published copies: two excerpts a genre, the rest named missing."""

import miniatures
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.readers import gtzan


def _render(root, tone, suffix):
    miniatures.gtzan(root, tone, suffix=suffix, numbers=(0, 99))
    return root


def test_the_copy_with_wav_files(tmp_path, tone):
    _render(tmp_path / "Data" / "genres_original", tone, ".wav")
    (tmp_path / "Data" / "features_30_sec.csv").write_text("filename,length\n")
    corpus = gtzan.read(tmp_path, split="all")
    clip = corpus.clips["jazz.00099"]
    assert clip.audio == tmp_path / "Data" / "genres_original" / "jazz" / "jazz.00099.wav"
    assert clip.audio.exists()


def test_the_original_archive_with_au_files(tmp_path, tone):
    _render(tmp_path / "genres", tone, ".au")
    corpus = gtzan.read(tmp_path, split="all")
    assert corpus.clips["rock.00000"].audio == tmp_path / "genres" / "rock" / "rock.00000.au"
    assert corpus.clips["rock.00001"].audio.name == "rock.00001.au"


def test_the_folder_of_genres_itself(tmp_path, tone):
    root = _render(tmp_path / "mine", tone, ".wav")
    assert gtzan.read(root, split="all").clips["pop.00000"].audio.exists()


def test_all_thousand_excerpts_are_items_by_genre_and_number(tmp_path, tone):
    _render(tmp_path / "genres_original", tone, ".wav")
    corpus = gtzan.read(tmp_path, split="all")
    assert len(corpus.items) == len(corpus.clips) == 1000
    assert [item.item_id for item in corpus.items[99:101]] == ["blues.00099", "classical.00000"]
    assert {item.row for item in corpus.items} == {"gtzan"}
    item = next(item for item in corpus.items if item.clip_id == "hiphop.00042")
    assert item.references == ("hip-hop",)
    assert item.choices == tuple("hip-hop" if g == "hiphop" else g for g in miniatures.GTZAN)


def test_the_file_known_to_be_corrupt_is_an_item_even_when_deleted(tmp_path, tone):
    root = _render(tmp_path / "genres_original", tone, ".wav")
    (root / "jazz" / "._jazz.00054.au").write_bytes(b"\0" * 211)
    clip = gtzan.read(tmp_path, split="all").clips["jazz.00054"]
    assert clip.audio == root / "jazz" / "jazz.00054.wav"
    assert not clip.audio.exists()


def test_a_converted_copy_is_taken_before_its_original(tmp_path, tone):
    root = _render(tmp_path / "genres", tone, ".au")
    tone(root / "disco" / "disco.00000.wav")
    clips = gtzan.read(tmp_path, split="all").clips
    assert clips["disco.00000"].audio.name == "disco.00000.wav"
    assert clips["disco.00099"].audio.name == "disco.00099.au"


def test_each_excerpt_is_its_own_cluster(tmp_path, tone):
    _render(tmp_path / "genres_original", tone, ".wav")
    clips = gtzan.read(tmp_path, split="all").clips
    assert all(clip.cluster == name for name, clip in clips.items())


def test_a_missing_genre_is_named(tmp_path, tone):
    root = _render(tmp_path / "genres_original", tone, ".wav")
    (root / "metal").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"genres_original/metal does not exist.*genre 'metal'"):
        gtzan.read(tmp_path, split="all")


def test_a_genre_without_excerpts_is_named(tmp_path, tone):
    root = _render(tmp_path / "genres_original", tone, ".wav")
    for file in (root / "pop").iterdir():
        file.rename(file.with_suffix(".ogg"))
    with pytest.raises(UserError, match=r"genres_original/pop holds no pop\.00000\.wav or \.au"):
        gtzan.read(tmp_path, split="all")


def test_a_folder_without_genres_names_the_places(tmp_path):
    with pytest.raises(UserError, match="has no genres_original/blues or .*give the folder"):
        gtzan.read(tmp_path, split="all")


def test_there_are_no_splits(tmp_path):
    with pytest.raises(UserError, match="GTZAN has no split 'test': use one of all"):
        gtzan.read(tmp_path, split="test")
