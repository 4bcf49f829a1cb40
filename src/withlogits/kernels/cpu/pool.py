"""Threads of our own: parked in the interpreter, spinning for a moment outside it, safe to fork and to interrupt.

A worker is a daemon thread that waits on a lock (parked). Once woken it spins outside the interpreter for some tens of
microseconds after each job, so that a loop of small calls finds it awake (waking a parked thread costs 50 µs or more),
and then parks again, so that nobody's processor is stolen. Whoever calls takes part in the work and never waits for a
worker to come; a second caller finds the pool busy and does its work alone. Results do not depend on who did what.

Not OpenMP, which kills a forked child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time

from . import compiler
from .job import CHUNK, CONTROL_BYTES, JOB, KERNEL, NEXT, STOP, WRONG, YIELD, PoolSpec

SPIN_SECONDS = 50e-6
WAKE = 150_000  # from this much work on, parked threads are worth waking
NO_CORE = -1
CHUNKS = 8  # of a job for each thread, so that nobody waits long for the last one


class Pool:
    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._workers: list[_Worker] = []
        self._leader: dict[str, object] = {}  # who has the workers now, under "is"; nobody if it is empty
        self._control = (ctypes.c_int64 * (CONTROL_BYTES // 8 + 8))()
        self._at = -(-ctypes.addressof(self._control) // 64) * 64
        self._slots = (ctypes.c_int64 * (CONTROL_BYTES // 8)).from_address(self._at)
        self._at_pointer = ctypes.c_char_p(self._at)
        self._started = self._closed = False
        self._caller_core = NO_CORE
        self.calls = 0  # jobs that workers were called to

    def _start(self) -> None:
        self._lead = compiler.SIGNATURE(compiler.address(PoolSpec("lead")))
        serve = compiler.SIGNATURE(compiler.address(PoolSpec("serve")))
        self._slots[YIELD // 8] = yield_address()
        start = time.perf_counter()
        serve(self._at_pointer, 0, 2000)
        each = (time.perf_counter() - start) / 2000
        spins = max(1, int(SPIN_SECONDS / each))
        while len(self._workers) < self.threads - 1:
            try:
                self._workers.append(_Worker(self, serve, self._at_pointer, spins))
            except RuntimeError:  # the system has no more to give, or the interpreter is about to end
                break
        self._started = True
        if self._closed:  # meanwhile, by set_num_threads, which saw no workers yet
            self.close()

    def run(self, kernel: int, job: bytes, count: int, work: int, multiple: int) -> int:
        """Rows 0 to count of a job, `work` elements in all, cut at multiples of `multiple`."""
        if self.threads == 1 or count <= multiple:
            return _alone(kernel, job, count)
        # An interrupt may come after any call of a function: between the one that acquires a lock and the `try`, it
        # would leave the lock closed for good. So one call both asks and signs, and looking up who signed is none.
        me, leader = object(), self._leader
        try:
            if leader.setdefault("is", me) is not me:
                return _alone(kernel, job, count)
            if not self._started:
                self._start()
            wake = work >= WAKE
            if not wake and all(worker.parked for worker in self._workers):
                return _alone(kernel, job, count)
            slots = self._slots
            chunks = self.threads * (CHUNKS if wake else 2)
            slots[CHUNK // 8] = -(-count // (chunks * multiple)) * multiple
            slots[NEXT // 8] = slots[WRONG // 8] = 0
            slots[STOP // 8] = count
            slots[KERNEL // 8] = kernel
            block = ctypes.create_string_buffer(job, len(job))
            slots[JOB // 8] = ctypes.addressof(block)
            self.calls += 1
            if wake:
                self._keep_apart()
                for worker in self._workers:
                    worker.wake()
            return int(self._lead(self._at_pointer, 0, 0))
        finally:
            if "is" in leader and leader["is"] is me:
                del leader["is"]

    def _keep_apart(self) -> None:
        """Forbid the workers the caller's core: some schedulers wake them there, and two threads take turns on it."""
        core = _core()
        if core == self._caller_core:
            return
        self._caller_core = core
        others = os.sched_getaffinity(0) - {core}
        if others:
            for worker in self._workers:
                with contextlib.suppress(OSError):  # the worker has ended, or may not be moved
                    os.sched_setaffinity(worker.native_id, others)

    def close(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.stop()


class _Worker:
    def __init__(self, pool: Pool, serve: object, at: object, spins: int) -> None:
        self.parked = True  # from birth: who is woken before its first step takes it at once
        self._stopped = False
        self._signal = threading.Lock()
        self._signal.acquire()
        thread = threading.Thread(target=self._live, args=(pool, serve, at, spins), name="withlogits", daemon=True)
        thread.start()
        self.native_id = thread.native_id or 0

    def _live(self, pool: Pool, serve: object, at: object, spins: int) -> None:
        while True:
            self._signal.acquire()
            known = -1
            # Whoever calls while a worker is on its way back into the interpreter takes it for awake, and does not
            # wake it: so it looks again before it parks.
            while not self._stopped and known != pool.calls:
                known = pool.calls
                serve(at, 0, spins)  # type: ignore[operator]
            if self._stopped:
                return
            self.parked = True

    def wake(self) -> None:
        if self.parked:
            self.parked = False
            self._release()

    def stop(self) -> None:
        self._stopped = True
        self.parked = False
        self._release()

    def _release(self) -> None:
        with contextlib.suppress(RuntimeError):  # another thread did so between our look and our call
            self._signal.release()


def _alone(kernel: int, job: bytes, count: int) -> int:
    return int(compiler.SIGNATURE(kernel)(job, 0, count))


def yield_address() -> int:
    """The system's `let somebody else run`."""
    function = ctypes.WinDLL("kernel32").SwitchToThread if os.name == "nt" else ctypes.CDLL(None).sched_yield  # type: ignore[attr-defined]
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _core() -> int:
    """The core that runs this, where the system tells and lets threads be moved."""
    return NO_CORE


if hasattr(os, "sched_setaffinity"):
    with contextlib.suppress(AttributeError, OSError):
        _core = ctypes.CDLL(None).sched_getcpu

_pool: Pool | None = None
_threads: int | None = None


def available() -> int:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_num_threads() -> int:
    global _threads
    if _threads is None:
        chosen = os.environ.get("WITHLOGITS_NUM_THREADS", "")
        _threads = int(chosen) if chosen.isdecimal() and int(chosen) > 0 else available()
    return _threads


def set_num_threads(threads: int) -> None:
    global _threads, _pool
    _threads = threads
    old, _pool = _pool, None
    if old is not None:
        old.close()


def run(kernel: int, job: bytes, count: int, work: int, multiple: int) -> int:
    global _pool
    pool = _pool
    if pool is None:
        pool = _pool = Pool(get_num_threads())
    return pool.run(kernel, job, count, work, multiple)


def _after_fork() -> None:
    global _pool
    _pool = None  # its threads did not come along
    compiler.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=compiler.before_fork, after_in_parent=compiler.after_fork, after_in_child=_after_fork)
