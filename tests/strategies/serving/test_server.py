import gc
import weakref

import hypothesis.strategies as st
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays

from fl.messages import records
from fl.messages.flower_internals import act_as_server
from fl.reproducibility.seeds import stream
from fl.simulation import InlineGrid
from strategies.serving.server import Averaging, Sampler

FINITE = st.floats(-1e6, 1e6, width=32)
WEIGHTS = st.integers(1, 10_000)


def averaging(sample=2, nodes=None, seed=1, available=None, **options) -> Averaging:
    nodes = nodes or {0: 10, 1: 11, 2: 12}
    there = available or (lambda number: sorted(nodes))
    sampler = Sampler(sample, nodes, there, lambda number: stream(seed, "sampling", number))
    return Averaging(sampler, **options)


def reply(network: dict[str, np.ndarray], weight: float, **figures: float) -> Message:
    act_as_server(1)
    content = {
        records.ARRAYS: records.pack_arrays(network),
        records.METRICS: MetricRecord({records.WEIGHT: weight, **figures}),
    }
    return Message(RecordDict(content), 10, "train")


def mean_of(networks, weights) -> dict[str, np.ndarray]:
    replies = (reply(n, w) for n, w in zip(networks, weights, strict=True))
    mean, _ = averaging().aggregate_train(1, replies)
    return records.unpack_arrays(mean)


@st.composite
def rounds(draw, dtype=np.float32, elements=FINITE):
    """Tensors of one name from several clients, and the clients' weights."""
    shape = draw(st.one_of(st.just(()), array_shapes(max_dims=3, max_side=4)))
    tensor = arrays(dtype, shape, elements=elements)
    tensors = draw(st.lists(tensor, min_size=1, max_size=5))
    weights = draw(st.lists(WEIGHTS, min_size=len(tensors), max_size=len(tensors)))
    return tensors, weights


@given(rounds())
def test_the_mean_lies_between_the_smallest_and_the_largest_and_has_their_form(drawn):
    tensors, weights = drawn
    mean = mean_of([{"w": tensor} for tensor in tensors], weights)["w"]
    assert (mean.dtype, mean.shape) == (np.float32, tensors[0].shape)
    assert (np.min(tensors, axis=0) <= mean).all()
    assert (mean <= np.max(tensors, axis=0)).all()


@given(rounds(np.float64, st.floats(-1e6, 1e6)))
def test_the_mean_is_the_closed_form(drawn):
    tensors, weights = drawn
    mean = mean_of([{"w": tensor} for tensor in tensors], weights)["w"]
    expected = np.average(np.stack(tensors), axis=0, weights=weights)
    assert mean.dtype == np.float64
    np.testing.assert_allclose(mean, expected, rtol=1e-12, atol=1e-9)


@given(rounds(), st.integers(1, 1000), st.integers(-8, 8))
def test_only_the_ratio_of_weights_matters(drawn, factor, exponent):
    tensors, weights = drawn
    networks = [{"w": tensor} for tensor in tensors]
    mean = mean_of(networks, weights)["w"]
    scaled = mean_of(networks, [factor * weight for weight in weights])["w"]
    # One float64 rounding more may tip the float32 to its neighbour, no farther; where the true
    # mean is 0, what is left are float64 roundings of the summands.
    bound = np.spacing(np.abs(mean)) + 1e-12 * np.max(np.abs(tensors), axis=0)
    assert (np.abs(scaled.astype(np.float64) - mean) <= bound).all()
    doubled = mean_of(networks, [weight * 2.0**exponent for weight in weights])["w"]
    assert doubled.tobytes() == mean.tobytes()


@given(
    st.one_of(
        arrays(np.float32, array_shapes(), elements=st.floats(width=32, allow_nan=False)),
        arrays(np.float32, (), elements=st.floats(width=32, allow_nan=False)),
        arrays(np.int64, array_shapes(), elements=st.integers(-(2**40), 2**40)),
    ).filter(lambda tensor: np.isfinite(tensor).all()),
    WEIGHTS,
)
def test_one_reply_gives_itself_back_exactly(tensor, weight):
    mean = mean_of([{"w": tensor}], [weight])["w"]
    assert (mean.dtype, mean.shape) == (tensor.dtype, tensor.shape)
    assert (mean == tensor).all()


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.data())
def test_an_integer_buffer_becomes_the_nearest_integer_to_its_mean(counters, data):
    weights = data.draw(st.lists(WEIGHTS, min_size=len(counters), max_size=len(counters)))
    tensors = [{"count": np.array(counter, np.int64)} for counter in counters]
    mean = mean_of(tensors, weights)["count"]
    assert (mean.dtype, mean.shape) == (np.int64, ())
    total = sum(weights)
    exact = sum(w * c for w, c in zip(weights, counters, strict=True))
    slack = total / 1000  # float64 knows the mean to 2**-13 at 2**40
    assert abs(int(mean) * total - exact) <= total / 2 + slack


def test_equal_counters_stay_what_they_are_whatever_the_weights():
    seven = {"count": np.array(7, np.int64)}
    mean = mean_of([seven, seven], [1, 2])["count"]
    assert (mean.dtype, mean.shape, int(mean)) == (np.int64, (), 7)


def test_replies_of_one_are_weighted_by_their_examples_figures_included():
    replies = [reply({"w": np.zeros(1)}, 1, loss=1.0), reply({"w": np.ones(1)}, 3, loss=2.0)]
    mean, figures = averaging().aggregate_train(1, replies)
    assert records.unpack_arrays(mean)["w"].tolist() == [0.75]
    assert figures["loss"] == 1.75


def test_a_round_without_replies_has_no_mean():
    assert averaging().aggregate_train(1, iter(())) == (None, None)


def test_no_more_than_one_reply_is_held_at_a_time():
    """Whenever the next reply is asked for, at most the last one is still alive.

    Without the cyclic collector, which may come by late: Flower's views of a RecordDict, such as
    `content.array_records`, would keep every reply until then.
    """
    networks: list[weakref.ref] = []
    alive: list[int] = []

    def one_by_one():
        for number in range(6):
            alive.append(sum(ref() is not None for ref in networks))
            message = reply({"w": np.full(1000, number, np.float32)}, 1)
            networks.append(weakref.ref(message.content[records.ARRAYS]))
            yield message
            del message

    gc.disable()
    try:
        mean, _ = averaging().aggregate_train(1, one_by_one())
    finally:
        gc.enable()
    assert float(records.unpack_arrays(mean)["w"][0]) == 2.5
    assert alive == [0, 1, 1, 1, 1, 1]


def asked_by(strategy: Averaging, number: int) -> list[int]:
    act_as_server(1)
    grid = InlineGrid.__new__(InlineGrid)  # the strategy only hands it on
    messages = strategy.configure_train(number, ArrayRecord({}), ConfigRecord(), grid)
    return [message.metadata.dst_node_id for message in messages]


@given(st.integers(1, 40), st.data(), st.integers(1, 1000))
def test_a_sample_is_sorted_without_replacement_and_of_the_right_size(clients, data, number):
    sample = data.draw(st.integers(1, clients))
    nodes = {partition: 1000 + partition for partition in range(clients)}
    asked = asked_by(averaging(sample, nodes), number)
    assert len(asked) == sample
    assert asked == sorted(set(asked))
    assert set(asked) <= set(nodes.values())


@given(st.permutations(range(12)), st.integers(1, 12), st.integers(1, 1000))
def test_a_sample_depends_on_the_round_s_generator_and_not_on_node_ids(order, sample, number):
    """Flower's node ids are random; who takes part must not be."""
    plain = {partition: 100 + partition for partition in range(12)}
    mixed = {partition: 100 + order[partition] for partition in order}  # another order, other ids
    of_plain = {node: partition for partition, node in plain.items()}
    of_mixed = {node: partition for partition, node in mixed.items()}
    chosen = [of_plain[node] for node in asked_by(averaging(sample, plain), number)]
    assert [of_mixed[node] for node in asked_by(averaging(sample, mixed), number)] == chosen


def test_a_round_s_sample_needs_no_round_before_it():
    nodes = {partition: partition for partition in range(20)}
    one = averaging(5, nodes)
    in_order = [asked_by(one, number) for number in range(1, 6)]
    backwards = [asked_by(one, number) for number in range(5, 0, -1)]
    assert in_order == backwards[::-1]
    assert len({tuple(asked) for asked in in_order}) > 1
    assert [asked_by(averaging(5, nodes, seed=2), number) for number in range(1, 6)] != in_order


def test_everybody_is_asked_about_equally_often():
    nodes = {partition: partition for partition in range(10)}
    strategy = averaging(3, nodes)
    asked = np.concatenate([asked_by(strategy, number) for number in range(1000)])
    counts = np.bincount(asked, minlength=10)
    # 300 expected, standard deviation sqrt(1000 * 0.3 * 0.7) = 14.5
    assert counts.min() > 300 - 5 * 14.5
    assert counts.max() < 300 + 5 * 14.5


def test_a_request_carries_the_round_and_the_global_network(tiny):
    grid = InlineGrid(tiny())
    network = records.pack_arrays({"w": np.arange(3, dtype=np.float32)})
    messages = list(averaging().configure_train(4, network, ConfigRecord(), grid))
    for message in messages:
        assert message.metadata.message_type == "train"
        request = records.read_request(message.content)
        assert (request.network["w"].tolist(), request.round) == ([0, 1, 2], 4)
    shared = {id(message.content[records.ARRAYS]) for message in messages}
    assert len(shared) == 1  # the server holds the network once, however many it asks


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_every_float_type_stays_what_it_is(dtype):
    mean = mean_of([{"w": np.array(1, dtype)}, {"w": np.array(2, dtype)}], [1, 1])["w"]
    assert (mean.dtype, mean.shape, float(mean)) == (dtype, (), 1.5)
