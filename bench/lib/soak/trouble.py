"""What befalls the swarm: a seed decides it, and each trouble ends by itself."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Callable

from lib.soak import clients
from lib.soak.hosts import Host
from lib.soak.origin import Content, Origin
from lib.units import KIB, MIB

_AT_ONCE = 3  # hosts in trouble: most of the swarm must always be well
_STALLED = 24
_SLOW = 600 * KIB


class Trouble(threading.Thread):
    """One trouble after the other, several at once, until it is told to stop; then it waits for their ends."""

    def __init__(self, daemons: list[Host], supernode: Host, origin: Origin, files: list[Content], seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._daemons, self._supernode, self._origin, self._files = daemons, supernode, origin, files
        self._dice, self._over = random.Random(seed), stop
        self._threads: list[threading.Thread] = []
        self._stalls: list[threading.Thread] = []
        self._room = threading.Semaphore(_AT_ONCE)
        self._origin_lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.failure: Exception | None = None

    def run(self) -> None:
        troubles: list[tuple[int, str, Callable[[float], None]]] = [
            (4, "daemon killed", self._kill),
            (4, "daemon frozen", self._freeze),
            (2, "supernode restarted", self._restart_supernode),
            (1, "supernode frozen", self._freeze_supernode),
            (2, "origin slow", self._slow_origin),
            (2, "origin cutting answers", self._flapping_origin),
            (1, "origin away", self._no_origin),
        ]
        weights = [weight for weight, _, _ in troubles]
        while not self._over.wait(1.0 + 2.0 * self._dice.random()):
            self._stall()
            _, name, befall = self._dice.choices(troubles, weights)[0]
            self.counts[name] += 1
            seconds = 1.0 + 5.0 * self._dice.random()
            thread = threading.Thread(target=self._guard, args=(befall, seconds), daemon=True)
            self._threads = [other for other in self._threads if other.is_alive()] + [thread]
            thread.start()
        for thread in self._threads + self._stalls:
            thread.join()

    def _guard(self, befall: Callable[[float], None], seconds: float) -> None:
        try:
            with self._room:
                befall(seconds)
        except Exception as error:  # noqa: BLE001: whatever it is, the soak must end with it
            self.failure = error
            self._over.set()

    def _stall(self) -> None:
        """More clients that stop reading."""
        self._stalls = [thread for thread in self._stalls if thread.is_alive()]
        while len(self._stalls) < _STALLED:
            host = self._dice.choice(self._daemons)
            content = self._dice.choice([content for content in self._files if content.size > 4 * MIB])
            arguments = (host, self._origin.url(content), 10.0 + 20.0 * self._dice.random())
            thread = threading.Thread(target=clients.stall, args=arguments, daemon=True)
            self._stalls.append(thread)
            thread.start()
            self.counts["clients that stop reading"] += 1

    def _kill(self, seconds: float) -> None:
        host = self._dice.choice(self._daemons)
        with host.trouble:
            host.kill()
            time.sleep(seconds / 2)
            host.restart()

    def _freeze(self, seconds: float) -> None:
        host = self._dice.choice(self._daemons)
        with host.trouble:
            host.freeze()
            time.sleep(seconds)
            host.thaw()

    def _restart_supernode(self, seconds: float) -> None:
        with self._supernode.trouble:
            self._supernode.kill()
            time.sleep(seconds / 2)
            self._supernode.restart()

    def _freeze_supernode(self, seconds: float) -> None:
        with self._supernode.trouble:
            self._supernode.freeze()
            time.sleep(seconds)
            self._supernode.thaw()

    def _slow_origin(self, seconds: float) -> None:
        with self._origin_lock:
            self._origin.rate = _SLOW
            time.sleep(2 * seconds)
            self._origin.rate = None

    def _flapping_origin(self, seconds: float) -> None:
        with self._origin_lock:
            self._origin.flap(True)
            time.sleep(seconds)
            self._origin.flap(False)

    def _no_origin(self, seconds: float) -> None:
        with self._origin_lock:
            self._origin.go_away()
            time.sleep(seconds / 2)
            self._origin.come_back()
