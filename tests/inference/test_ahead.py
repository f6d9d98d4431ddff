import threading
import time

import pytest

from ssd_keras.inference.ahead import WriteBehind, read_ahead


def test_results_keep_their_order_and_few_wait():
    started = []

    def slow(k):
        started.append(k)
        time.sleep(0.002 * (k % 3))
        return k * k

    results = read_ahead(slow, range(20), ahead=4)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(started) == 5  # the first result and four that wait: memory does not grow
    assert list(results) == [k * k for k in range(1, 20)]


def test_an_error_of_a_reader_is_raised_at_its_place():
    results = read_ahead(lambda k: 1 // (2 - k), range(5), ahead=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_all_calls_are_done_at_the_end_and_few_wait():
    done, most = [], []
    lock = threading.Lock()

    def call(k):
        time.sleep(0.002)
        with lock:
            done.append(k)

    with WriteBehind(3, threads=1) as write:
        for k in range(20):
            write(call, k)
            with lock:
                most.append(k + 1 - len(done))
    assert done == list(range(20))
    assert max(most) <= 5


def test_an_error_of_a_writer_is_raised():
    def fail():
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(3) as write:
        write(fail)


def test_the_error_of_the_block_comes_before_those_of_the_writers():
    def stopped():
        with WriteBehind(3) as write:
            write(lambda: 1 // 0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
