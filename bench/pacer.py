"""Says when writes are due: python3 pacer.py, started by the open loop, which talks to it through its pipes.

Out: one byte, when it is ready. In: a start in nanoseconds of the system's clock, how many writes there are, and when each is due, in nanoseconds from the
start; all numbers of 8 bytes, little-endian. Out: one byte for each write when that is due. Ends when all were.

A process of its own sleeps to within microseconds and costs nothing meanwhile; the BEAM's own timers are a millisecond or
two late, and a scheduler that waits for the moment is missing where the writes are measured.
"""

import array
import ctypes
import os
import sys
import time

PR_SET_TIMERSLACK = 29


def numbers(count):
    read = array.array("q")
    read.frombytes(sys.stdin.buffer.read(8 * count))
    if sys.byteorder == "big":
        read.byteswap()
    return read


def be_punctual():
    """As far as this user may: before all others, or with what the kernel adds to each sleep switched off."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, PermissionError):
        try:
            ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
        except (AttributeError, OSError):
            pass


def main():
    be_punctual()
    os.write(1, b"!")
    start, count = numbers(2)
    due = numbers(count)
    # The clock of `time.sleep`, which a change of the system's clock does not move.
    start += time.monotonic_ns() - time.time_ns()
    said = 0
    while said < count:
        left = start + due[said] - time.monotonic_ns()
        if left > 0:
            time.sleep(left / 1e9)
            continue
        first = said
        while said < count and start + due[said] <= time.monotonic_ns():
            said += 1
        os.write(1, bytes(said - first))


main()
