"""The thread pool: every row once, the same bits for any number of threads; threads, forks, interrupts and exits."""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import withlogits
from kernels.engines import assert_same, cpu, distributions, indices, rows
from processes import environment, run
from withlogits.kernels.cpu import compiler, pool
from withlogits.kernels.cpu.plan import SMALL

LARGE = (400, 1000)  # enough to wake threads that are parked
MIDDLE = (40, 1000)  # enough only for threads that are awake


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = withlogits.get_num_threads()
    withlogits.set_num_threads(3)
    yield
    withlogits.set_num_threads(before)


def families(shape: tuple[int, int], dtype: Any = np.float32) -> dict[str, Callable[[], Any]]:
    x = rows(*shape, dtype, special=False)
    labels, dense = indices(x), distributions(x, dtype)
    x[~np.isfinite(x)] = -20.0
    across = np.ascontiguousarray(x.T)
    both: Any = {"wrt": ("logits",)}
    soft: Any = {"axis": 1, "sparse": False, "class_weight": np.linspace(0.5, 2, shape[1]), "reduction": "mean"}
    return {
        "index": lambda: cpu.softmax_loss(x, labels, axis=1, sparse=True, **both),
        "index across": lambda: cpu.softmax_loss(across, labels, axis=0, sparse=True, **both),
        "tiled": lambda: cpu.softmax_loss(x.reshape(-1, 10), np.resize(labels % 10, x.size // 10), axis=1, sparse=True),
        "smooth sum": lambda: cpu.softmax_loss(
            x, labels, axis=1, sparse=True, label_smoothing=0.1, reduction="sum", **both
        ),
        "dense": lambda: cpu.softmax_loss(x, dense, wrt=("logits", "labels"), **soft),
        "softmax": lambda: (cpu.softmax_map(x, axis=1, kind="softmax"), ()),
        "logsumexp": lambda: (cpu.softmax_map(across, axis=0, kind="logsumexp"), ()),
        "sigmoid": lambda: cpu.sigmoid_loss(x, dense, wrt=("logits", "labels")),
        "sigmoid sum": lambda: cpu.sigmoid_loss(x, dense, reduction="sum"),
        "softplus": lambda: (cpu.elementwise(x, kind="softplus"), ()),
    }


def assert_result(got: Any, expected: Any) -> None:
    assert_same(got[0], expected[0])
    for ours, theirs in zip(got[1], expected[1], strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [LARGE, MIDDLE, (16 * 3 + 1, 1003)])
def test_the_number_of_threads_changes_no_bit(shape: tuple[int, int], dtype: str) -> None:
    chosen = families(shape, dtype) if shape[1] % 10 == 0 else {"index": families((shape[0], 1000), dtype)["index"]}
    for name, compute in chosen.items():
        withlogits.set_num_threads(1)
        expected = compute()
        for threads in (2, 3, 8):
            withlogits.set_num_threads(threads)
            for _ in range(3):
                assert_result(compute(), expected)
            assert len(pool._pool._workers) == threads - 1, name  # type: ignore[union-attr]


class Recorder:
    """A kernel in Python that tells who did which rows; the first pieces wait until `company` threads are there."""

    def __init__(self, company: int = 1, inside: Callable[[], None] = lambda: None) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.threads: set[int] = set()
        self.arrived, self.company, self.inside = threading.Event(), company, inside
        self.kernel = compiler.SIGNATURE(self.call)
        self.address = ctypes.cast(self.kernel, ctypes.c_void_p).value

    def call(self, job: bytes, start: int, stop: int) -> int:
        self.threads.add(threading.get_ident())
        self.ranges.append((start, stop))
        if len(self.threads) >= self.company:
            self.arrived.set()
        self.arrived.wait(0.5)
        self.inside()
        return 1


@pytest.mark.parametrize(("count", "multiple"), [(1000, 1), (1000, 16), (17, 16), (33, 16), (5, 1), (16, 16)])
def test_every_row_is_done_once(count: int, multiple: int) -> None:
    kernel = Recorder()
    pieces = pool.run(kernel.address, b"job", count, pool.WAKE, multiple)
    assert pieces == len(kernel.ranges)  # what kernels return is added up
    done = sorted(kernel.ranges)
    assert done[0][0] == 0
    assert done[-1][1] == count
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(done))
    assert all(start % multiple == 0 for start, _ in done)


def test_all_threads_take_part() -> None:
    for _ in range(20):  # a worker that is on its way to park when it is called may miss a job
        kernel = Recorder(company=3)
        pool.run(kernel.address, b"job", 3, pool.WAKE, 1)
        assert threading.get_ident() in kernel.threads
        if len(kernel.threads) == 3:
            return
    raise AssertionError("never were all three threads in a job")


def test_whoever_finds_the_pool_busy_works_alone() -> None:
    """Another thread, and the same one from within: neither waits, neither disturbs the job that runs."""
    second, within = Recorder(), Recorder()
    other = threading.Thread(target=lambda: pool.run(second.address, b"job", 100, pool.WAKE, 1))

    def disturb() -> None:
        if len(first.ranges) == 1:
            other.start()
            other.join(30)
            pool.run(within.address, b"job", 100, pool.WAKE, 1)

    first = Recorder(inside=disturb)
    pool.run(first.address, b"job", 100, pool.WAKE, 1)
    assert second.ranges == [(0, 100)]
    assert within.ranges == [(0, 100)]
    assert sum(stop - start for start, stop in first.ranges) == 100


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system lets no program choose a thread's cores")
def test_workers_are_kept_off_the_callers_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some schedulers wake a thread on the core of whoever wakes it; two threads then take turns on one core."""
    cores, moved = os.sched_getaffinity(0), []
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, allowed: moved.append((thread, set(allowed))))
    kernel = Recorder()
    for core in (min(cores), min(cores), max(cores)):
        monkeypatch.setattr(pool, "_core", lambda core=core: core)
        pool.run(kernel.address, b"job", 100, pool.WAKE, 1)
    workers = {thread.native_id for thread in threading.enumerate() if thread.name == "withlogits"}
    assert len(moved) == (2 * (2 if len(cores) > 1 else 0)), "each worker once for each core that the caller moved to"
    assert {thread for thread, _ in moved} <= workers
    assert all(allowed in (cores - {min(cores)}, cores - {max(cores)}) for _, allowed in moved)


def test_a_call_that_takes_a_worker_for_awake_is_served() -> None:
    """It may come while the worker is on its way back into the interpreter, past its last look at the pool."""
    served, calls = [], types.SimpleNamespace(calls=1)

    def serve(*_: object) -> None:
        served.append(calls.calls)
        if len(served) == 1:
            calls.calls += 1

    worker = pool._Worker(calls, serve, None, 0)  # type: ignore[arg-type]
    worker.wake()
    deadline = time.monotonic() + 10
    while not worker.parked and time.monotonic() < deadline:
        time.sleep(0.001)
    worker.stop()
    assert served == [1, 2]


def test_one_thread_has_no_pool() -> None:
    withlogits.set_num_threads(1)
    kernel = Recorder()
    pool.run(kernel.address, b"job", 1000, pool.WAKE, 1)
    assert kernel.ranges == [(0, 1000)]
    assert kernel.threads == {threading.get_ident()}


def test_without_threads_to_be_had_there_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    expected = families(LARGE)["index"]()
    withlogits.set_num_threads(4)
    monkeypatch.setattr(threading.Thread, "start", fail)
    assert_result(families(LARGE)["index"](), expected)
    assert pool._pool._workers == []  # type: ignore[union-attr]


def test_a_worker_that_is_woken_and_stopped_at_once() -> None:
    served = threading.Semaphore(0)
    worker = pool._Worker(types.SimpleNamespace(calls=1), lambda *arguments: served.release(), None, 1)  # type: ignore[arg-type]
    for _ in range(100):
        worker.parked = True  # what two leaders may both have seen
        worker.wake()
    assert served.acquire(timeout=30)
    worker.stop()
    worker.stop()


def compute_all_along(seconds: float, threads: int, shapes: list[tuple[int, int]]) -> int:
    """Each thread its own arrays, every result compared with that of one thread alone; how many there were."""
    withlogits.set_num_threads(1)
    work = [list(families(shape).values()) for shape in shapes]
    expected = [[compute() for compute in own] for own in work]
    withlogits.set_num_threads(3)
    stop, done, failures = time.monotonic() + seconds, [0] * threads, []

    def one(me: int) -> None:
        mine = me % len(work)
        try:
            while not done[me] or time.monotonic() < stop:  # once at least, however busy the machine is
                for compute, result in zip(work[mine], expected[mine], strict=True):
                    assert_result(compute(), result)
                    done[me] += 1
        except BaseException as error:
            failures.append(error)

    all_threads = [threading.Thread(target=one, args=(me,)) for me in range(threads)]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    assert not failures, failures[0]
    assert min(done) > 0
    return sum(done)


def test_two_threads_for_ten_seconds() -> None:
    assert compute_all_along(10.0, 2, [LARGE, MIDDLE]) > 100


def test_many_threads_at_once() -> None:
    compute_all_along(1.0, 12, [LARGE, MIDDLE, (4, 1000)])


def test_the_number_of_threads_may_change_meanwhile() -> None:
    x = rows(*LARGE, np.float32)
    labels = indices(x)
    expected = cpu.softmax_loss(x, labels, axis=1, sparse=True, wrt=("logits",))
    stop = threading.Event()

    def change() -> None:
        rng = np.random.default_rng(0)
        while not stop.is_set():
            withlogits.set_num_threads(int(rng.integers(1, 6)))
            time.sleep(0.001)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for _ in range(200):
            assert_result(cpu.softmax_loss(x, labels, axis=1, sparse=True, wrt=("logits",)), expected)
    finally:
        stop.set()
        changing.join()
    withlogits.set_num_threads(2)
    until = time.monotonic() + 30
    while sum(thread.name == "withlogits" for thread in threading.enumerate()) > 1 and time.monotonic() < until:
        time.sleep(0.01)  # those of pools that were replaced end by themselves
    assert sum(thread.name == "withlogits" for thread in threading.enumerate()) <= 1


def test_an_interrupt_between_any_two_calls_leaves_everything_usable() -> None:
    """Where the interpreter looks for signals: after each call. All these places, one after the other."""
    x = rows(*LARGE, np.float32)
    labels = indices(x)

    def compute() -> Any:
        return withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(labels=labels, logits=x)

    expected = compute()
    place = interrupted = 0
    while True:
        left = place

        def watch(frame: Any, event: str, argument: Any) -> None:
            nonlocal left
            inside = frame
            while inside is not None:
                if inside.f_code.co_name == "__del__":  # what is raised there is only printed
                    return
                inside = inside.f_back
            if event in ("c_return", "call"):
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        try:
            sys.setprofile(watch)
            compute()
            sys.setprofile(None)
            break
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.setprofile(None)
        assert pool._pool is None or pool._pool._leader == {}, f"after call {place} the pool stays busy"
        value, gradient = compute()
        assert_same(value, expected[0])
        assert_same(gradient, expected[1])
        place += 1
    assert interrupted > 20


def test_interrupts_in_the_middle_of_large_losses() -> None:
    out = run(
        """
import os, random, signal, threading, time
import numpy as np
import withlogits
from withlogits.kernels.cpu import pool

withlogits.set_num_threads(3)
rng = np.random.default_rng(0)
x = rng.normal(0, 4, (1500, 800)).astype("f")
labels, dense = rng.integers(0, 800, 1500), rng.random((1500, 800), "f")
calls = [
    lambda: withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(labels=labels, logits=x),
    lambda: withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)(labels=dense, logits=x),
    lambda: withlogits.value_and_grad(withlogits.softmax_cross_entropy_with_logits)(labels=dense, logits=x),
]
expected = [call() for call in calls]
ready, done, interrupts, compared = threading.Event(), False, 0, 0

def interrupt():
    global done
    random.seed(0)
    for _ in range(300):
        ready.wait()
        ready.clear()
        time.sleep(random.random() * 0.008)
        os.kill(os.getpid(), signal.SIGINT)
    done = True

sender = threading.Thread(target=interrupt)
sender.start()
while not done:
    try:
        while not done:
            ready.set()  # one interrupt at a time, and only in here
            for call, (value, gradient) in zip(calls, expected):
                got, its_gradient = call()
                assert np.array_equal(got, value) and np.array_equal(its_gradient, gradient)
                compared += 1
            while not ready.is_set() and not done:
                time.sleep(0.001)
    except KeyboardInterrupt:
        interrupts += 1
sender.join()
assert interrupts == 300, interrupts
for call, (value, gradient) in zip(calls, expected):
    got, its_gradient = call()
    assert np.array_equal(got, value) and np.array_equal(its_gradient, gradient)
assert pool._pool._leader == {}
print("right", compared > 0)
"""
    )
    assert out == "right True\n"


FORKED = """
import os, sys
import numpy as np
import withlogits

withlogits.set_num_threads(3)
rng = np.random.default_rng(0)
x, labels = rng.normal(0, 4, (600, 500)).astype("f"), rng.integers(0, 500, 600)
both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
value, gradient = both(labels=labels, logits=x)

def right():
    for _ in range(5):
        got, its_gradient = both(labels=labels, logits=x)
        assert np.array_equal(got, value) and np.array_equal(its_gradient, gradient)
    return True
"""
needs_fork = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="fork is no way to start a process here")


@needs_fork
def test_a_fork_after_use() -> None:
    """The child has threads of its own, and so has its child; the parent goes on."""
    out = run(
        FORKED
        + """
from withlogits.kernels.cpu import pool
for _ in range(20):
    child = os.fork()
    if child == 0:
        right()
        assert len(pool._pool._workers) == 2
        grandchild = os.fork()
        if grandchild == 0:
            withlogits.set_num_threads(4)
            right()
            os._exit(0)
        os._exit(os.waitpid(grandchild, 0)[1])
    right()
    assert os.waitpid(child, 0)[1] == 0
print("right")
"""
    )
    assert out == "right\n"


@needs_fork
def test_a_fork_while_another_thread_computes() -> None:
    out = run(
        FORKED
        + """
import signal, threading
stop = threading.Event()

def compute():
    while not stop.is_set():
        right()

threads = [threading.Thread(target=compute) for _ in range(2)]
for thread in threads:
    thread.start()
statuses = []
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        right()
        os._exit(0)
    statuses.append(os.waitpid(child, 0)[1])
stop.set()
for thread in threads:
    thread.join()
print(statuses == [0] * 20)
"""
    )
    assert out == "True\n"


@needs_fork
def test_multiprocessing_by_fork() -> None:
    out = run(
        FORKED
        + """
import multiprocessing
def task(i):
    return right() and os.getpid()

with multiprocessing.get_context("fork").Pool(3) as processes:
    answers = processes.map(task, range(30))
print(right(), all(answers), os.getpid() not in answers)
"""
    )
    assert out == "True True True\n"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_openmp_runtime_is_loaded() -> None:
    out = run(
        """
import re
def runtimes():
    return set(re.findall(r"[^/]*lib(?:[gi]?omp|iomp5|omp5|tbb)[^/]*$", open("/proc/self/maps").read(), re.MULTILINE))

import numpy as np
before = runtimes()
import withlogits
withlogits.set_num_threads(4)
x = np.linspace(-9, 9, 400_000).reshape(400, 1000)
for dtype in "fd":
    x = x.astype(dtype)
    withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
        labels=np.zeros(400, int), logits=x
    )
    withlogits.value_and_grad(withlogits.softmax_cross_entropy_with_logits)(labels=x > 0, logits=x)
    withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)(labels=x > 0, logits=x)
    for name in ("softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "softplus", "logit"):
        getattr(withlogits, name)(x)
assert "libomp" not in str(runtimes() - before)
print(sorted(runtimes() - before))
import ctypes, ctypes.util
name = ctypes.util.find_library("gomp")
if name:  # this test can fail
    ctypes.CDLL(name)
    assert runtimes() - before
""",
        env=environment(WITHLOGITS_CACHE_DIR=""),
    )
    assert out == "[]\n"


@needs_fork
@pytest.mark.parametrize("moment", ["", "time.sleep(0.05)", "threading.Thread(target=forever, daemon=True).start()"])
def test_the_interpreter_ends_quietly(moment: str) -> None:
    """With workers that spin, with parked ones, and with a daemon thread in the middle of a loss; thirty times each."""
    out = run(
        FORKED
        + f"""
import threading, time
def forever():
    while True:
        both(labels=labels, logits=x)

children = []
for i in range(30):
    child = os.fork()
    if child == 0:
        right()
        kept = withlogits.softmax(np.tile(x, (3, 1)))  # large enough for recycled memory, alive until the end
        {moment}
        sys.exit(0)
    children.append(child)
    if i % 3 == 2:
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 3, i
        children = []
print("ended")
"""
    )
    assert out.endswith("ended\n")
    assert out.count("ended") == 1


def test_losses_at_the_very_end() -> None:
    """From atexit, where new threads are no longer to be had in some versions of Python."""
    out = run(
        """
import atexit
import numpy as np
import withlogits
withlogits.set_num_threads(3)
x = np.ones((500, 800))

@atexit.register
def late():
    print(withlogits.logsumexp(x).shape)
"""
    )
    assert out == "(500,)\n"


@pytest.mark.skipif(not hasattr(__import__("os"), "sched_setaffinity"), reason="no affinity on this system")
def test_threads_are_as_many_as_cores_that_may_be_used() -> None:
    code = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import withlogits
print(withlogits.get_num_threads())
"""
    assert run(code, env=environment(WITHLOGITS_NUM_THREADS=None)) == "1\n"
    assert run(code, env=environment(WITHLOGITS_NUM_THREADS="3")) == "3\n"


def test_small_work_stays_with_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "run", None)
    count = SMALL // 100 - 1
    x = rows(count, 100, np.float32, special=False)
    value, _ = cpu.softmax_loss(x, indices(x), axis=1, sparse=True, z_loss=0.125)
    assert value.shape == (count,)
