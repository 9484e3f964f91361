"""CMU-MOSEI: sentiment of sentences in YouTube monologues (Bagher Zadeh et al. 2018).

Two sets of files are in use, told apart by their table of labels:

    CMU_MOSEI_Labels.csv                 s3prl's export of the SDK's CMU_MOSEI_Labels.csd: index
                                         column, file,index,start,end,label2a,label2b,...,split
                                         (0 training, 1 validation, 2 test, 3 in none)
    Raw/Audio/Full/WAV_16000/<file>.wav  whole videos of CMU_MOSEI.zip; "Raw/" may be left out

    label.csv                            MMSA's: video_id,clip_id,text,label,...,annotation,mode
    Raw/<video_id>/<clip_id>.mp4         sentences, cut; a .wav of the same name goes before

Classes are negative, neutral and positive: the sign of the mean score from -3 to 3, which is
`label2b` of the one and `annotation` of the other. LTU-AS asks MOSEI for the emotion, but neither
table gives one class of it: the SDK has six strengths, and s3prl's `label6` calls silence of all
six "happy". `spoken_text` is left to Whisper, as in LTU-AS.
"""

from pathlib import Path

from data_pipelines.metadata.speech_tables import (
    MOSEI,
    MOSEI_SIGNS,
    Sentence,
    mosei_of_mmsa,
    mosei_of_s3prl,
)
from data_pipelines.metadata.table_files import check_split, find
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.collected import CollectedItems
from ltu_jax.preprocessing.names import find_audio

SPLITS = ("test", "valid", "train")
CLASSES = tuple(MOSEI_SIGNS.values())


def read(data: Path, *, split: str) -> Corpus:
    """Read the sentences of one split in the order of the table; the cluster is the video.

    Sentences that the labels let start a little before their video start with it.

    Raises:
        UserError: unknown split; no table or a column missing; a label, split or time that cannot
            be; a sentence listed twice.
    """
    check_split(split, SPLITS, dataset="CMU-MOSEI")
    table = find(data, ("CMU_MOSEI_Labels.csv", "label.csv"), expected=MOSEI)
    found = CollectedItems()
    if table.name == "CMU_MOSEI_Labels.csv":
        sentences = mosei_of_s3prl(table, emotions=False, problems=found)
    else:
        sentences = mosei_of_mmsa(table, problems=found)
    for sentence in sentences:
        if sentence.split != split:
            continue
        clip = AudioClip(
            clip_id=f"{sentence.video}_{sentence.index}",
            audio=_audio(data, sentence),
            cluster=sentence.video,
            start=sentence.start or 0.0,
            end=sentence.end,
        )
        item = Item(
            item_id=clip.clip_id,
            clip_id=clip.clip_id,
            row="mosei",
            references=(sentence.sentiment,),
            choices=CLASSES,
        )
        with found.record():
            found.add(item, clip, where=sentence.where)
    return found.corpus(table, split=split)


def _audio(data: Path, sentence: Sentence) -> Path:
    """Return the file of a sentence, or of the video that it is cut from."""
    if sentence.end is not None:
        folder = data / "Audio"
        folder = (folder if folder.exists() else data / "Raw" / "Audio") / "Full" / "WAV_16000"
        return folder / f"{sentence.video}.wav"
    stem = data / "Raw" / sentence.video / sentence.index
    wav, mp4 = (stem.with_name(stem.name + ending) for ending in (".wav", ".mp4"))
    return find_audio(wav) or mp4
