"""Clipping and noise: laws, Flower's own wrapper as the reference, and where that one is wrong."""

import gc
import math
import weakref

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower
from hypothesis import given
from hypothesis import strategies as st

from fl.config import Experiment
from fl.messages import records
from fl.simulation import InlineGrid
from strategies.bounds import clipped, distance
from strategies.serving.private import CLIP, Noise, Private
from strategies.serving.server import Averaging, Sampler

COVERED = {"w", "b"}
START = {"w": np.ones((2, 3), np.float32), "b": np.zeros(2, np.float32)}


def network(scale: float, statistic: float | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(int(scale * 8))
    moved = {n: a + scale * rng.normal(size=a.shape).astype(np.float32) for n, a in START.items()}
    return moved if statistic is None else {**moved, "running_var": np.float32([statistic])}


def reply(arrays, images: int, node: int = 2) -> Message:
    metrics = MetricRecord({"num-examples": images, "loss": 1.0})
    content = {"arrays": records.pack_arrays(arrays), "metrics": metrics}
    return Message(RecordDict(content), node, "train")


def average(uniform: bool = True) -> Averaging:
    sampler = Sampler(2, {0: 2, 1: 3}, lambda _: [0, 1], np.random.default_rng)
    return Averaging(sampler, uniform=uniform)


def private(clips, noise=0.0, clip=1.0, start=START):
    grid = InlineGrid(Experiment(), ClientApp())
    made = Private(average(), Noise(noise, clip, COVERED, np.random.default_rng), clips)
    config = ConfigRecord()
    list(made.configure_train(1, records.pack_arrays(start), config, grid))
    return made, config


def mean_of(strategy, replies, number=1) -> dict[str, np.ndarray]:
    return records.unpack_arrays(strategy.aggregate_train(number, iter(replies))[0])


@given(scale=st.floats(0, 100), norm=st.floats(1e-3, 100))
def test_a_clipped_update_is_within_its_norm_and_points_the_same_way(scale, norm):
    found = network(scale)
    near = clipped(found, START, norm, COVERED)
    far = distance(found, START)
    assert distance(near, START) <= norm * (1 + 1e-5) + 1e-5
    if far <= norm:
        assert all(near[n] is found[n] for n in found)
    else:
        for name, array in near.items():
            expected = START[name] + (found[name] - START[name]) * (norm / far)
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


def test_distance_is_the_norm_of_all_tensors_together():
    there = {"w": START["w"] + 3, "b": START["b"] + 4}
    assert distance(there, START) == pytest.approx(math.sqrt(6 * 9 + 2 * 16))


def test_without_noise_and_with_equal_weights_it_is_flower_s_wrapper():
    updates = [network(0.2), network(5.0), network(30.0)]
    ours, _ = private("server")
    found = mean_of(ours, [reply(u, 7, 2 + i) for i, u in enumerate(updates)])
    theirs = flower.DifferentialPrivacyServerSideFixedClipping(flower.FedAvg(), 0.0, 1.0, 3)
    theirs.current_arrays = records.pack_arrays(START)
    expected, _ = theirs.aggregate_train(1, [reply(u, 7, 2 + i) for i, u in enumerate(updates)])
    for name, array in records.unpack_arrays(expected).items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


def test_a_client_counts_the_same_however_many_images_it_says_it_has():
    ours, _ = private("server", clip=1e6)
    found = mean_of(ours, [reply(network(1.0), 1), reply(network(2.0), 10**6, 3)])
    for name, array in found.items():
        middle = (network(1.0)[name] + network(2.0)[name]) / 2
        np.testing.assert_allclose(array, middle, rtol=1e-5)


def test_an_update_of_nothing_is_no_division_by_zero():
    ours, _ = private("server")
    np.testing.assert_array_equal(mean_of(ours, [reply(START, 1)])["w"], START["w"])


@pytest.mark.parametrize("clips", ["server", "client"])
def test_noise_is_a_function_of_the_round_and_of_the_replies_in_the_mean(clips):
    def noise(number, replies):
        start = {"w": np.zeros((100, 100), np.float32), "b": np.zeros(2, np.float32)}
        ours, _ = private(clips, noise=3.0, clip=0.5, start=start)
        return mean_of(ours, [reply(start, 1, 2 + i) for i in range(replies)], number)["w"]

    one = noise(1, 2)
    np.testing.assert_array_equal(one, noise(1, 2))
    assert not np.array_equal(one, noise(2, 2))
    for replies in (1, 2, 4):
        assert noise(1, replies).std() == pytest.approx(3.0 * 0.5 / replies, rel=0.05)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - what Flower's wrapper draws from
    noise(1, 1)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_statistics_of_batchnorm_are_neither_clipped_nor_noised():
    ours, _ = private("server", noise=9.0, start={**START, "running_var": np.float32([1])})
    found = mean_of(ours, [reply(network(9.0, 0.5), 1), reply(network(8.0, 1.5), 1, 3)])
    assert found["running_var"].tolist() == [1.0]


@pytest.mark.slow
def test_replies_are_folded_as_they_come():
    ours, _ = private("server")
    alive = []

    def coming():
        for scale in (1.0, 2.0, 3.0):
            one = reply(network(scale), 1)
            alive.append(weakref.ref(one))
            yield one
            del one
            gc.collect()
            assert sum(ref() is not None for ref in alive) <= 1

    assert mean_of(ours, coming())


def test_only_clients_that_clip_are_told_the_norm():
    assert private("client", clip=0.7)[1][CLIP] == 0.7
    assert CLIP not in private("server")[1]


def test_a_weighted_mean_is_refused():
    with pytest.raises(ValueError, match="count the same"):
        Private(average(uniform=False), Noise(1.0, 1.0, COVERED, np.random.default_rng), "server")


def test_no_reply_is_no_network_and_no_noise():
    ours, _ = private("server", noise=1.0)
    assert ours.aggregate_train(1, []) == (None, None)
