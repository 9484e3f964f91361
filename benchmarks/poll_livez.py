"""Ask a server's /livez every 20 ms until stdin ends; print the seconds of each as JSON.

A process of its own: what else a benchmark's client does must not hold it up.
"""

import json
import select
import sys
import time
import urllib.request


def main() -> None:
    """Run the command line: the address of the server."""
    address, seconds = f"{sys.argv[1]}/livez", []
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        begun = time.perf_counter()
        with urllib.request.urlopen(address, timeout=60) as reply:
            reply.read()
        seconds.append(time.perf_counter() - begun)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
