"""A long way between two bridges: frames that one TAP device sends come out of the other so much later, in order.

far.py FIRST-DEVICE SECOND-DEVICE ONE-WAY-MILLISECONDS -- in the namespace of both; runs until it is stopped.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_FRAME = 65536
# Frames that are on their way at once in one direction: far more than the limited links bring.
_MOST = 20000


def _tap(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return device


def main() -> None:
    first, second = (_tap(name) for name in sys.argv[1:3])
    delay = float(sys.argv[3]) / 1000
    ways: dict[int, tuple[int, deque[tuple[float, bytes]]]] = {first: (second, deque()), second: (first, deque())}
    print("ready", flush=True)
    while True:
        due = min((waiting[0][0] for _, waiting in ways.values() if waiting), default=None)
        # Not poll, which counts whole milliseconds.
        pause = None if due is None else max(0.0, due - time.monotonic())
        for device in select.select([first, second], [], [], pause)[0]:
            _, waiting = ways[device]
            while len(waiting) < _MOST:
                try:
                    frame = os.read(device, _FRAME)
                except BlockingIOError:
                    break
                waiting.append((time.monotonic() + delay, frame))
        now = time.monotonic()
        for out, waiting in ways.values():
            while waiting and waiting[0][0] <= now:
                try:
                    os.write(out, waiting.popleft()[1])
                except BlockingIOError:
                    # A full device loses it, as a full switch does.
                    pass


if __name__ == "__main__":
    main()
