"""Numbers stay right where there are many of them, and those that are none are seen."""

import math

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.kernels import maximization, responses
from rfviz.kernels.responses.activity import Activity
from rfviz.kernels.responses.maps import Maps
from rfviz.kernels.responses.mean_stimulus import MeanStimulus
from rfviz.kernels.responses.patch_sums import Phases
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.training import distributed
from rfviz.training.firing import firing

pytestmark = pytest.mark.faults
REPEATED = 2**36
"""Times that a batch of some hundred responses is repeated: more than 10^13 terms, counts beyond 2^31 per channel."""


def repeated(accumulator):
    """Give an accumulator that has seen a batch the state of a stream that repeats it."""
    sums = ("neurons", "total", "histogram", "count")
    state = accumulator.state_dict()
    accumulator.load_state_dict({name: each * REPEATED if name in sums else each for name, each in state.items()})
    return accumulator


def test_activity_counts_and_sums_ten_to_the_thirteen_responses():
    batch = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0)) - 0.25
    late = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(1))
    activity = Activity()
    activity.update(Maps(batch))
    repeated(activity).update(Maps(late))
    found, neurons = activity.result(), int(activity.state["neurons"])
    assert neurons == REPEATED * 4 * 63 + 2 * 63 > 10**13
    for channel in range(3):
        many, few = batch[:, channel].double().flatten().tolist(), late[:, channel].double().flatten().tolist()
        positive = REPEATED * sum(each > 0 for each in many) + sum(each > 0 for each in few)
        assert positive > 2**31 and int(found["positive_count"][channel]) == positive
        assert int(found["histogram"][channel].sum()) == neurons
        total = math.fsum([*(REPEATED * each for each in many), *few])
        assert float(found["mean"][channel]) == pytest.approx(total / neurons, rel=1e-12)
        # the late batch is 1 in 10^11 of the sum, and still counts
        arrived = float(activity.state["total"][channel]) - REPEATED * math.fsum(many)
        assert arrived == pytest.approx(math.fsum(few), rel=1e-2)


def test_mean_stimuli_of_ten_to_the_thirteen_patches():
    generator = torch.Generator().manual_seed(2)
    field, images = ReceptiveField(3, 1, -1), torch.rand(5, 3, 8, 8, generator=generator)
    chosen = torch.rand(5, 2, 8, 8, generator=generator) - 0.3
    one = MeanStimulus(field)
    one.update(Phases(images), chosen)
    mean, count = one.result()
    many = MeanStimulus(field)
    many.update(Phases(images), chosen)
    found, found_count = repeated(many).result()
    assert torch.equal(found_count, count * REPEATED)
    assert int(found_count.min()) > 2**31 and int(found_count.sum()) > 10**13
    assert torch.equal(found, mean)
    # of a late batch that is 1 in 10^11 of the sum, something still arrives
    before = many.state_dict()["total"].clone()
    late = torch.rand(5, 3, 8, 8, generator=generator)
    alone = MeanStimulus(field)
    for each in (many, alone):
        each.update(Phases(late), chosen)
    arrived = many.state_dict()["total"] - before
    assert torch.allclose(arrived, alone.state_dict()["total"], rtol=0.05, atol=0.01)


def test_firing_rates_of_many_neurons(monkeypatch):
    many = {"positive": torch.tensor([2**40, 2**40]), "neurons": torch.tensor([2**41])}

    def gather(mine):
        assert {name: each.dtype for name, each in mine.items()} == dict.fromkeys(many, torch.int64)
        return [many, mine]

    monkeypatch.setattr(distributed, "gather", gather)
    net = nn.Sequential(nn.Identity())
    with firing(net, "0") as rates:
        for of_channels in ([[1.0], [0.0]], [[2.0], [-1.0]]):
            net(torch.tensor(of_channels)[None, :, :, None])
    assert rates() == [(2**40 + 2) / (2**41 + 2), 2**40 / (2**41 + 2)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["pixel", "weight", "running variance"])
def test_what_is_not_finite_stops_a_pass_and_names_the_image(resnet, some_tiles, value, place):
    images, batch_size = some_tiles.clone(), 4
    if place == "pixel":
        images[7, 1, 20, 20] = value
    elif place == "weight":
        resnet.layer1[0].conv1.weight.data[2, 0, 1, 1] = value
    else:
        resnet.layer1[0].bn2.running_var[3] = math.nan if value == math.inf else value  # 1 / inf is a fine 0
    expected = 7 if place == "pixel" else 0
    with pytest.raises(RfvizError, match=rf"^image {expected}: .*"):
        responses.collect(resnet, images, ["maxpool", "layer1.0"], top_k=2, batch_size=batch_size)


def test_an_overflow_of_float16_is_seen(resnet, some_tiles):
    """Weights that are fine in float32 and bfloat16, and too large for float16."""
    resnet.bn1.weight.data *= 3e4
    resnet.layer1[0].conv1.weight.data *= 50
    layers = ["layer1.0"]
    for dtype in (torch.float32, torch.bfloat16):
        assert responses.collect(resnet.to(dtype), some_tiles.to(dtype), layers, top_k=1, mean_stimulus=False)
    with pytest.raises(RfvizError, match=r"^image 0: layer 'layer1.0' responds with NaN or infinity"):
        responses.collect(resnet.half(), some_tiles.half(), layers, top_k=1, mean_stimulus=False)


def test_gradient_ascent_enlarges_rounding_where_it_hardly_moves_a_channel(resnet):
    """In float32, what differs by the number of channels that go together, as by that of threads, is rounding."""
    batches = [maximization.maximize(resnet, "layer1.2", batch_size=size).activations[-1] for size in (1, 6)]
    assert torch.allclose(*batches, rtol=0.01)


@pytest.mark.parametrize("batch_size", [3, *(pytest.param(size, marks=pytest.mark.thorough) for size in (1, 12))])
def test_the_number_of_threads_changes_rounding_only(resnet, some_tiles, batch_size):
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(
                responses.collect(resnet, some_tiles, ["layer1.2"], top_k=3, batch_size=batch_size)["layer1.2"]
            )
    finally:
        torch.set_num_threads(before)
    one, two = found
    assert torch.equal(one.top_images, two.top_images) and torch.equal(one.top_positions, two.top_positions)
    assert torch.equal(one.positive_count, two.positive_count)
    assert torch.allclose(one.top_values, two.top_values, rtol=1e-5)
    assert torch.allclose(one.mean_stimulus, two.mean_stimulus, atol=1e-5)
