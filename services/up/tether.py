"""Runs a command that dies with the process that started it: `python tether.py PARENT_PID COMMAND...`.

A program of its own, because the wish must be stated between fork and exec, where Python with threads must not run code. Where the kernel
does not know it (only Linux does), the command runs untethered.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that was gone before the wish was stated will not die again.
    if os.getppid() == parent:
        os.execvp(command[0], command)


if __name__ == "__main__":
    main()
