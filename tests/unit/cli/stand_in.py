"""Stands in for a bento: listens on a port, and like BentoML has a worker in another session.

python stand_in.py PORT [--stubborn | --crash | --deaf | --hopeless | --retries]

On SIGUSR1 it exits as a service that only a change of its settings helps.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time

EXIT_CONFIGURATION = 78


def main() -> None:
    if "--crash" in sys.argv:
        print("the model folder is empty", flush=True)
        raise SystemExit(3)
    if "--deaf" in sys.argv:
        print("still loading", flush=True)
        time.sleep(600)
    if "--hopeless" in sys.argv:
        print(
            "2026-11-27T21:00:00+0000 ERROR bentos: x.v1 cannot serve: no GPU; exits with status 78 in 600 s",
            flush=True,
        )
        time.sleep(600)
    if "--retries" in sys.argv:
        print("2026-11-27T21:00:00+0000 WARNING bentos: no hub; the next attempt is in 4 s", flush=True)
        time.sleep(1)
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(EXIT_CONFIGURATION))
    if "--stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        print(f"listening on {sys.argv[1]}", flush=True)
        while True:
            server.accept()[0].close()


if __name__ == "__main__":
    main()
