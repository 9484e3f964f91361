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

import re
from collections.abc import Iterator
from pathlib import Path

from ltu_jax.core.errors import UserError, shorten
from ltu_jax.evaluation.datasets.item import AudioClip, Corpus, Item
from ltu_jax.evaluation.datasets.readers.table_files import (
    RecordProblems,
    check_split,
    find,
    need,
    text_lines,
    visible,
)

_NO_EXCITED = "_without_excited"
SPLITS = ("session5", "all", "session5" + _NO_EXCITED, "all" + _NO_EXCITED)

_LABELS = {"ang": "angry", "hap": "happy", "exc": "happy", "neu": "neutral", "sad": "sad"}
_NOT_ASKED = {"fru", "sur", "fea", "dis", "oth", "xxx"}  # xxx: no emotion had a majority
_CHOICES = ("angry", "happy", "neutral", "sad")
_TURN = re.compile(r"\[\d+\.\d+ - \d+\.\d+\]\t(\S+)\t(\w+)\t\[[^\]]*\]\s*")
_WHAT = "IEMOCAP_full_release, with Session1 to Session5 in it"


def read(data: Path, *, split: str) -> Corpus:
    """Read the turns of four emotions, by session, dialog and place in its file.

    The cluster is the dialog: a session has two speakers only, too few to resample.

    Raises:
        UserError: unknown split; a session, its label files or the file of a dialog is missing; a
            line of a turn that is broken, repeated, of another dialog or of an unknown emotion.
    """
    check_split(split, SPLITS, dataset="IEMOCAP")
    root = find(data, ("Session5", "IEMOCAP_full_release/Session5"), what=_WHAT).parent
    counted = set(_LABELS) - ({"exc"} if split.endswith(_NO_EXCITED) else set())
    items, clips, bad = [], {}, RecordProblems()
    for session in "5" if split.startswith("session5") else "12345":
        folder = need(root / f"Session{session}", what=f"session {session} of IEMOCAP")
        for labels in _label_files(folder):
            dialog = labels.stem
            for turn, speaker, emotion in _turns(labels, session, bad):
                if emotion not in counted:
                    continue
                audio = folder / "sentences" / "wav" / dialog / f"{turn}.wav"
                clips[turn] = AudioClip(clip_id=turn, audio=audio, cluster=dialog)
                items.append(
                    Item(
                        item_id=turn,
                        clip_id=turn,
                        row="iemocap",
                        references=(_LABELS[emotion],),
                        choices=_CHOICES,
                        groups={
                            "session": session,
                            "speaker": speaker,
                            "setting": "improvised" if "_impro" in dialog else "scripted",
                        },
                    )
                )
    return bad.none_in(Corpus(items=tuple(items), clips=clips), source=root)


def _label_files(session: Path) -> list[Path]:
    folder = need(session / "dialog" / "EmoEvaluation", what="the emotion labels of its dialogs")
    files = [path for path in visible(folder) if path.suffix == ".txt"]
    if not files:
        raise UserError(f"{folder} has no .txt files: it should have one for each dialog")
    audio = need(session / "sentences" / "wav", what="a folder of turns for each dialog")
    unlabelled = {path.name for path in visible(audio) if path.is_dir()} - {f.stem for f in files}
    if unlabelled:
        raise UserError(f"{folder} has no labels of {shorten(sorted(unlabelled))}: copy it again")
    return files


def _turns(path: Path, session: str, bad: RecordProblems) -> Iterator[tuple[str, str, str]]:
    """Yield (turn, its speaker, emotion code) for each turn of a dialog."""
    seen = set()
    for where, line in text_lines(path, what="the emotion labels of a dialog"):
        if not line.startswith("["):
            continue
        read = False
        with bad.record():
            match = _TURN.fullmatch(line)
            if match is None:
                raise UserError(
                    f"{where} is {line[:60]!r}: a turn's line is [start - end], name, emotion and "
                    "[ratings] with tabs between; the file may be cut off"
                )
            turn, emotion = match.groups()
            # The letter in the dialog's name is who wore the markers; the turn's says who speaks.
            letter = turn.removeprefix(f"{path.stem}_")[:1]
            if not turn.startswith(f"{path.stem}_") or letter not in ("F", "M"):
                raise UserError(
                    f"{where}: turn {turn!r} should be {path.stem}_F or _M and a number"
                )
            if emotion not in _LABELS and emotion not in _NOT_ASKED:
                raise UserError(
                    f"{where}: unknown emotion {emotion!r}; known: "
                    f"{', '.join(sorted(_NOT_ASKED | set(_LABELS)))}"
                )
            if turn in seen:
                raise UserError(f"{where}: turn {turn!r} is listed twice")
            seen.add(turn)
            read = True
        if read:
            yield turn, f"Ses0{session}{letter}", emotion
    if not seen and not bad.found:
        raise UserError(f"{path} has no turn: a turn's line starts with [start - end]")
