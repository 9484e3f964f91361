"""On a host of the slice: run a stage, hand SIGTERM on to it, and leave its exit status behind.

Usage: python3 tpu_scripts/host_run.py COMMAND...    in the folder that has launch/

host_stage.sh starts it. Python's `wait` goes on after a signal; that of bash may lose the status of
a child that ends at the same moment. Standard library only: it runs before an environment exists.
"""

import os
import signal
import subprocess
import sys

STATUS = "launch/status"


def main(command):
    """Return when the stage has ended and its status is written."""
    child, early = None, []

    def hand_on(number, _):
        if child is None:
            early.append(number)
        else:
            child.send_signal(signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    # setpriv and env give way to the trainer, which gets a SIGTERM of its own where this process is
    # killed. It holds launch/lock as long as it lives.
    child = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], close_fds=False)
    if early:  # before there was a child
        child.send_signal(signal.SIGTERM)
    status = child.wait()
    with open(f"{STATUS}.new", "w") as file:
        file.write(f"{128 - status if status < 0 else status}\n")
    os.replace(f"{STATUS}.new", STATUS)


if __name__ == "__main__":
    main(sys.argv[1:])
