"""Ends the services of the demo when the demo cannot do so itself any more, for instance after `kill -9`.

A process of its own. It reads process groups, one number per line, from a pipe that only the demo holds open: the end
of the pipe is the end of the demo.
"""

import contextlib
import os
import signal
import sys
import time

GRACE_S = 5.0


def main() -> None:
    groups = [int(line) for line in sys.stdin]
    for number in (signal.SIGTERM, signal.SIGKILL):
        for group in groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, number)
        if number is signal.SIGTERM:
            time.sleep(GRACE_S)


if __name__ == "__main__":
    main()
