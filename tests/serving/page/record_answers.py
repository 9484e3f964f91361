"""Write answers of a real model into recorded_answers.json, which the replayed server gives.

python -m tests.serving.page.record_answers runs/demo/stage3
"""

import argparse
import json
from pathlib import Path

import ltu_jax
from ltu_jax.generation.request import drain

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parents[2] / "ltu_jax" / "serving" / "page" / "examples"
QUESTION = "What can be inferred from the audio?"


def record(model: ltu_jax.Model, *, clip: Path) -> dict:
    """Return what the model says about a clip in each mode, and its transcript."""
    (written,) = model.transcribe([clip])
    made = {
        "seconds": written.segments[-1].end if written.segments else 0.0,
        "segments": [
            {"start": one.start, "end": one.end, "text": one.text} for one in written.segments
        ],
        "answers": {},
    }
    for mode in ("joint", "audio", "text"):
        heard = model.listen(clip, mode=mode)
        answer = drain(model.stream(heard, QUESTION, max_new_tokens=32))
        one = {"text": answer.text, "tokens": answer.tokens, "spoken_text": answer.spoken_text}
        one |= {"seconds": answer.seconds, "seconds_dropped": answer.seconds_dropped}
        if mode != "text":
            explanation = model.explain(heard, QUESTION, tokens=answer.tokens)
            one["pieces"] = explanation.pieces
            one["layers"] = [[round(float(x), 6) for x in row] for row in explanation.layers]
            one["heard"] = [[round(float(x), 6) for x in row] for row in explanation.tokens]
        made["answers"][mode] = one
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    loaded = ltu_jax.load(parser.parse_args().checkpoint)
    recorded = record(loaded, clip=EXAMPLES / "frogs.mp3")
    text = json.dumps(recorded, ensure_ascii=False)
    (FOLDER / "recorded_answers.json").write_text(text + "\n", encoding="utf-8")
