"""IEMOCAP: acted two-speaker dialogs with emotion labels for each turn (Busso et al. 2008).

Published layout of `IEMOCAP_full_release`:

    Session5/dialog/EmoEvaluation/Ses05F_impro01.txt
    Session5/sentences/wav/Ses05F_impro01/Ses05F_impro01_F000.wav

A turn's line has its times, name, the emotion most annotators chose, and three ratings; the lines
of single annotators follow it:

    [6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]

Four classes are asked, as is usual: angry, happy, neutral, sad. The usual 5,531 turns count
"excited" as happy (1,103, 1,636, 1,708 and 1,084 of each). LTU-AS trains on 4.3k clips, as many as
sessions 1 to 4 have that way (4,290), which leaves the 1,241 of session 5 to test on; its own list
is not published. Splits that end in `_without_excited` leave excited turns out (4,490 turns over
all sessions).
"""

from pathlib import Path

from data_pipelines.metadata.speech_tables import (
    IEMOCAP_EMOTIONS,
    iemocap_label_files,
    iemocap_turns,
)
from data_pipelines.metadata.table_files import (
    RecordProblems,
    check_split,
    find,
    need,
)
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item

_NO_EXCITED = "_without_excited"
SPLITS = ("session5", "all", "session5" + _NO_EXCITED, "all" + _NO_EXCITED)

_CHOICES = ("angry", "happy", "neutral", "sad")
_EXPECTED = "IEMOCAP_full_release, with Session1 to Session5 in it"


def read(data: Path, *, split: str) -> Corpus:
    """Read the turns of four emotions, by session, dialog and place in its file.

    The cluster is the dialog: a session has two speakers only, too few to resample.

    Raises:
        UserError: unknown split; a session, its label files or the file of a dialog is missing; a
            line of a turn that is broken, repeated, of another dialog or of an unknown emotion.
    """
    check_split(split, SPLITS, dataset="IEMOCAP")
    root = find(data, ("Session5", "IEMOCAP_full_release/Session5"), expected=_EXPECTED).parent
    counted = set(IEMOCAP_EMOTIONS) - ({"exc"} if split.endswith(_NO_EXCITED) else set())
    items, clips, bad = [], {}, RecordProblems()
    for session in "5" if split.startswith("session5") else "12345":
        folder = need(root / f"Session{session}", expected=f"session {session} of IEMOCAP")
        for labels in iemocap_label_files(folder):
            dialog = labels.stem
            for turn in iemocap_turns(labels, session=session, problems=bad):
                if turn.emotion not in counted:
                    continue
                audio = folder / "sentences" / "wav" / dialog / f"{turn.name}.wav"
                clips[turn.name] = AudioClip(clip_id=turn.name, audio=audio, cluster=dialog)
                items.append(
                    Item(
                        item_id=turn.name,
                        clip_id=turn.name,
                        row="iemocap",
                        references=(IEMOCAP_EMOTIONS[turn.emotion],),
                        choices=_CHOICES,
                        groups={
                            "session": session,
                            "speaker": turn.speaker,
                            "setting": "improvised" if "_impro" in dialog else "scripted",
                        },
                    )
                )
    return bad.none_in(Corpus(items=tuple(items), clips=clips), source=root)
