"""A process that has imported everything and forks a training run on demand.

A run of the toy stage computes for a second or two; importing JAX, TensorFlow and Orbax takes ten.
The zygote imports them, starts no backend, and a run is a fork of it: a process of its own, which
can be killed like any other.

    stdin:  {"run": [arguments of `ltu_jax.train`], "log": FILE, "env": {...},
             "inject": ["module", "function", argument] or null}  -> {"pid": 7}
            {"wait": 7, "seconds": 1.5}    -> {"status": exit code, negative signal, null: still on}
"""

import importlib
import json
import os
import select
import signal
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def serve() -> None:
    """Answer requests until stdin ends."""
    import_everything()
    _say({"ready": True})
    children: dict[int, int] = {}
    ended: dict[int, int] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if "run" in request:
            pid = _fork(request)
            children[pid] = os.pidfd_open(pid)
            _say({"pid": pid})
            continue
        pid = request["wait"]
        if pid in children:
            select.select([children[pid]], [], [], request.get("seconds"))
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                os.close(children.pop(pid))
                ended[pid] = os.waitstatus_to_exitcode(status)
        _say({"status": ended.get(pid)})


def import_everything() -> None:
    """What a run imports, without a JAX backend or a TensorFlow runtime."""
    import orbax.checkpoint  # noqa: F401

    from data_pipelines.records.tf_example import import_tensorflow
    from ltu_jax import train  # noqa: F401
    from ltu_jax.training import trainer  # noqa: F401

    import_tensorflow()


def _fork(request: dict) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(request.get("env", {}))
    os.chdir(ROOT)
    from ltu_jax import train
    from ltu_jax.core import errors

    status = 1
    if request.get("inject"):
        module, function, argument = request["inject"]
        getattr(importlib.import_module(module), function)(argument)
    try:
        errors.main(lambda: train.main(request["run"]))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except (Exception, KeyboardInterrupt):
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _say(value: dict) -> None:
    sys.__stdout__.write(json.dumps(value) + "\n")
    sys.__stdout__.flush()


if __name__ == "__main__":
    serve()
