"""Noise in channels: Table 1, by dose and one by one, against passes with hooks."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy import stats
from test_intervene import Labelled64 as Every5th
from test_intervene import losses
from torch.nn import functional as F

from rfviz.errors import RfvizError
from rfviz.images.whitening import IMAGENET, NONE
from rfviz.kernels import intervene, silent
from rfviz.kernels import noise as kernel
from rfviz.kernels.noise import ROWS, adding_noise, noise, noise_dose, noise_effect
from rfviz.kernels.responses import collect
from rfviz.kernels.silent import matched_active
from rfviz.kernels.stream import read_strength
from rfviz.nets import models


class Labelled64:
    """Labelled images in float64, in which the order of sums does not show."""

    def __init__(self, images, labels):
        self.images, self.labels = images.double(), labels

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], self.labels[index]


@pytest.fixture(scope="module")
def photographs(tiles):
    """Seventeen tiles of 32 px of real photographs, with labels."""
    chosen = range(0, len(tiles), math.ceil(len(tiles) / 17))
    return Labelled64(torch.stack([tiles[i][0][:, :32, :32] for i in chosen]), [tiles[i][1] for i in chosen])


def silence(net, *channels):
    """Make channels of the stem so that they never fire."""
    net.bn1.bias.data[list(channels)] = -1e3
    return net


@pytest.fixture
def net(resnet):
    """A ResNet34 of width 6 in float64 whose channels 1 and 4 never fire; the last two rows take one channel."""
    return silence(resnet.double(), 1, 4)


def changes_on(net, images, channels_of, seed, preprocess=NONE):
    """Change of the loss of each image, and of being right, by noise in `channels_of(image)`, through a hook."""
    net = copy.deepcopy(net).eval()
    labels = torch.tensor(images.labels)

    def disturb(module, args, output):
        for i in range(len(output)):
            for channel in channels_of(i):
                output[i, channel] += noise(seed, i, channel, output.shape[2:])

    found = []
    with torch.no_grad():
        for _ in ("clean", "noisy"):
            logits = net(preprocess(images.images))
            right = (logits.argmax(1) == labels).double()
            found.append(torch.stack([F.cross_entropy(logits, labels, reduction="none"), right]))
            net.maxpool.register_forward_hook(disturb)
    return found[1] - found[0]


def effect_on(*args, **options):
    """Change of mean loss and of accuracy."""
    return changes_on(*args, **options).mean(1).tolist()


def uncertain(net, photographs, preprocess=NONE):
    """Weaken responses and balance classes, so that noise changes what is predicted."""
    with torch.no_grad():
        net.bn1.weight *= 0.1
        net.bn1.bias *= 0.1
        net.fc.bias -= net(preprocess(photographs.images)).mean(0)
    return net


# -------------------------------------------------------------------------------------------------- the noise


def test_without_labels_table_1_is_of_the_output(net, photographs):
    """Of images whose labels are the network's own answers, top-1 changes alike."""
    net = uncertain(net, photographs)
    with torch.no_grad():
        answers = net(photographs.images).argmax(1).tolist()
    found = collect(net, photographs, ["maxpool"], top_k=1)["maxpool"]
    named, unnamed = (
        noise_effect(net, given, found, seeds=[0, 3], batch_size=5)
        for given in (Labelled64(photographs.images, answers), photographs.images)
    )
    assert named.labelled and not unnamed.labelled
    assert (unnamed.clean_loss, unnamed.clean_top1) == (0, 1)
    for row, effect in unnamed.effects.items():
        assert torch.equal(effect.top1, named.effects[row].top1) and (effect.loss > 0).all()
    assert unnamed.effects["random_active"].top1.min() < 0


def test_noise_is_rectified_gaussian():
    drawn = torch.stack([noise(0, image, channel, (56, 56)) for image in range(20) for channel in range(5)])
    values = drawn.numpy().astype(np.float64)
    n = values.size
    assert drawn.dtype == torch.float32
    assert values.min() == 0
    # The rectified normal has mean 1 / sqrt(2 pi), mean square 1 / 2, and is 0 half of the time: to 4 standard errors.
    mean = 1 / math.sqrt(2 * math.pi)
    assert abs(values.mean() - mean) < 4 * math.sqrt((0.5 - mean**2) / n)
    assert abs((values**2).mean() - 0.5) < 4 * math.sqrt((1.5 - 0.25) / n)
    assert abs((values == 0).mean() - 0.5) < 4 * math.sqrt(0.25 / n)
    # Positions, images and channels are independent of each other.
    centred = values - mean
    for one, other in [
        (centred[:, :, 1:], centred[:, :, :-1]),
        (centred[:, 1:], centred[:, :-1]),
        (centred[1:], centred[:-1]),
        (centred[5:], centred[:-5]),
    ]:
        assert abs((one * other).mean()) < 4 * (0.5 - mean**2) / math.sqrt(one.size)


def test_noise_depends_on_seed_image_and_channel_only():
    keys = [(seed, image, channel) for seed in range(4) for image in (0, 1, 2, 300) for channel in (0, 1, 2, 63)]
    fields = [noise(*key, (5, 7)) for key in keys]
    assert all(field.shape == (5, 7) for field in fields)
    assert len({field.numpy().tobytes() for field in fields}) == len(keys)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002  # to show that the global generators play no part
    assert all(torch.equal(noise(*key, (5, 7)), field) for key, field in zip(keys, fields, strict=True))


# ---------------------------------------------------------------------------------------------------- Table 1


@pytest.mark.parametrize("preprocess", [pytest.param(NONE, marks=pytest.mark.thorough), IMAGENET])
def test_the_table_equals_a_pass_with_a_hook(net, photographs, preprocess):
    responses = collect(uncertain(net, photographs, preprocess), photographs, ["maxpool"], preprocess=preprocess)[
        "maxpool"
    ]
    found = {
        batch_size: noise_effect(
            net, photographs, responses, seeds=[3, 8], preprocess=preprocess, batch_size=batch_size
        )
        for batch_size in (1, 7, 64)
    }
    rates = responses.positive_count.tolist()
    assert rates[1] == rates[4] == 0
    expected = {
        (seed, channels): effect_on(net, photographs, lambda i, channels=channels: channels, seed, preprocess)
        for seed in (3, 8)
        for channels in [(1, 4), *((channel,) for channel in range(6))]
    }
    for result in found.values():
        assert (result.inactive, result.channels, result.images) == ((1, 4), 6, 17)
        assert tuple(result.effects) == ROWS
        assert result.effects["inactive"].channels == (1, 4)
        assert result.effects["random_inactive"].channels == (1, 4)
        assert result.effects["least_active"].channels == (1,)
        (active,) = result.effects["random_active"].channels
        assert active in (0, 2, 3, 5)
        for s, seed in enumerate([3, 8]):
            assert_is(result.effects["inactive"], s, expected[seed, (1, 4)])
            assert_is(result.effects["least_active"], s, expected[seed, (1,)])
            assert_is_one_of(result.effects["random_inactive"], s, [expected[seed, (c,)] for c in (1, 4)])
            assert_is_one_of(result.effects["random_active"], s, [expected[seed, (c,)] for c in (0, 2, 3, 5)])
        assert (result.effects["inactive"].loss.abs() > 1e-4).all()
        assert any(effect.top1.any() for effect in result.effects.values())
    clean = torch.stack([net(preprocess(image[None]))[0] for image in photographs.images]).detach()
    labels = torch.tensor(photographs.labels)
    for result in found.values():
        assert result.clean_loss == pytest.approx(F.cross_entropy(clean, labels).item(), abs=1e-12)
        assert result.clean_top1 == pytest.approx((clean.argmax(1) == labels).double().mean().item(), abs=1e-12)
        for row in ROWS:
            torch.testing.assert_close(result.effects[row].loss, found[64].effects[row].loss, rtol=0, atol=1e-12)
            assert torch.equal(result.effects[row].top1, found[64].effects[row].top1)
            assert result.effects[row].channels == found[64].effects[row].channels


def assert_is(effect, s, expected):
    loss, top1 = expected
    assert effect.loss.dtype == effect.top1.dtype == torch.float64
    assert effect.loss[s].item() == pytest.approx(loss, abs=1e-12)
    assert effect.top1[s].item() == pytest.approx(top1, abs=1e-12)


def assert_is_one_of(effect, s, candidates):
    fitting = [c for c in candidates if abs(c[0] - effect.loss[s].item()) < 1e-12]
    assert len(fitting) == 1
    assert_is(effect, s, fitting[0])


def calls_of(run, **modules):
    """How often `run` calls some modules, by name, and what it returns."""
    counts = dict.fromkeys(modules, 0)

    def count(name):
        counts[name] += 1

    hooks = [
        module.register_forward_hook(lambda *_, name=name: count(name))  # a hook that returns None changes nothing
        for name, module in modules.items()
    ]
    result = run()
    for hook in hooks:
        hook.remove()
    return result, counts


@pytest.mark.parametrize("batch_size", [5, *(pytest.param(size, marks=pytest.mark.thorough) for size in (1, 17, 64))])
@pytest.mark.parametrize("seeds", [[0], range(5)])
def test_what_comes_before_the_layer_is_computed_once(net, photographs, batch_size, seeds):
    responses = collect(net, photographs, ["layer1.1"])["layer1.1"]
    _, counts = calls_of(
        lambda: noise_effect(net, photographs, responses, layer="layer1.1", seeds=seeds, batch_size=batch_size),
        conv1=net.conv1,
        relu=net.relu,
        inside=net.layer1[1].conv2,
        behind=net.layer1[2].conv1,
    )
    batches = math.ceil(17 / batch_size)
    assert counts["conv1"] == counts["relu"] == counts["inside"] == batches
    assert batches * (1 + len(seeds)) <= counts["behind"] <= batches * (1 + len(ROWS) * len(seeds))


def test_rows_that_choose_the_same_channels_share_a_pass(net, photographs):
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    seeds = range(8)
    found, counts = calls_of(
        lambda: noise_effect(net, photographs, responses, seeds=seeds, batch_size=6), conv1=net.conv1, fc=net.fc
    )
    passes = 1  # without noise
    for s in seeds:
        one, four = (effect_on(net, photographs, lambda i, c=c: (c,), s) for c in (1, 4))
        assert_is(found.effects["inactive"], s, effect_on(net, photographs, lambda i: (1, 4), s))
        assert_is(found.effects["least_active"], s, one)
        assert_is_one_of(found.effects["random_inactive"], s, [one, four])
        candidates = [effect_on(net, photographs, lambda i, c=c: (c,), s) for c in (0, 2, 3, 5)]
        assert_is_one_of(found.effects["random_active"], s, candidates)
        # A random inactive channel that is the least active one needs no pass of its own.
        shared = abs(found.effects["random_inactive"].loss[s].item() - one[0]) < 1e-12
        passes += 3 if shared else 4
        assert shared == (found.effects["random_inactive"].loss[s] == found.effects["least_active"].loss[s])
    assert 1 + 3 * 8 < passes < 1 + 4 * 8  # both happen
    assert counts == {"conv1": 3, "fc": 3 * passes}


def test_one_inactive_channel_is_every_row_but_the_last(resnet, photographs):
    net = silence(resnet.double(), 3)
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    found, counts = calls_of(
        lambda: noise_effect(net, photographs, responses, seeds=[4, 6], batch_size=64), conv1=net.conv1, fc=net.fc
    )
    assert counts == {"conv1": 1, "fc": 1 + 2 * 2}
    for s, seed in enumerate([4, 6]):
        expected = effect_on(net, photographs, lambda i: (3,), seed)
        for row in ROWS[:3]:
            assert found.effects[row].channels == (3,)
            assert_is(found.effects[row], s, expected)
        candidates = [effect_on(net, photographs, lambda i, c=c: (c,), seed) for c in (0, 1, 2, 4, 5)]
        assert_is_one_of(found.effects["random_active"], s, candidates)


def test_rows_share_the_noise_of_an_image_and_channel(net, photographs, monkeypatch):
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    drawn = []

    def noting(*key):
        drawn.append(key[:3])
        return noise(*key)

    monkeypatch.setattr(kernel, "noise", noting)
    noise_effect(net, photographs, responses, seeds=[0, 1], batch_size=6)
    assert len(set(drawn)) == len(drawn) == 2 * 17 * 3  # two inactive channels and an active one


def test_rows_that_differ_in_one_image_do_not_share_a_pass(net, some_tiles):
    # Image 256 begins a new draw: within one batch the rows agree up to there and then part, in some seed.
    corners = [
        image[:, y : y + 8, x : x + 8] for image in some_tiles for y in range(0, 50, 10) for x in range(0, 50, 10)
    ]
    images = Labelled64(torch.stack(corners[40:300]), [i % 4 for i in range(260)])
    responses = collect(net, images, ["maxpool"], batch_size=260)["maxpool"]
    seeds = range(6)
    found, counts = calls_of(
        lambda: noise_effect(net, images, responses, seeds=seeds, batch_size=260), conv1=net.conv1, fc=net.fc
    )
    passes, parted = 1, 0
    for s in seeds:
        losses = torch.stack([losses_with_noise_in(net, images, channel, s) for channel in (None, 1, 4)])
        change = (losses[1:] - losses[0]) / 260
        total = {(a, b): change[a, :256].sum() + change[b, 256:].sum() for a in (0, 1) for b in (0, 1)}
        ((a, b),) = [k for k, value in total.items() if abs(value - found.effects["random_inactive"].loss[s]) < 1e-12]
        passes += 3 if (a, b) == (0, 0) else 4
        parted += a != b
        assert found.effects["least_active"].loss[s].item() == pytest.approx(total[0, 0].item(), abs=1e-12)
    assert parted
    assert counts == {"conv1": 1, "fc": passes}


@pytest.mark.thorough
def test_one_inactive_channel_per_256_consecutive_images(net, some_tiles):
    corners = [
        image[:, y : y + 16, x : x + 16] for image in some_tiles for y in range(0, 45, 9) for x in range(0, 45, 9)
    ]
    images = Labelled64(torch.stack(corners), [i % 4 for i in range(300)])
    assert len(images) == 300
    responses = collect(net, images, ["maxpool"], batch_size=100)["maxpool"]
    seeds = range(6)
    found = {
        size: noise_effect(net, images, responses, seeds=seeds, batch_size=size).effects["random_inactive"].loss
        for size in (100, 300)
    }
    torch.testing.assert_close(found[100], found[300], rtol=0, atol=1e-12)
    drawn = []
    for s in seeds:
        # Loss of every image without noise (row 0) and with noise in channel 1 or 4.
        losses = torch.stack([losses_with_noise_in(net, images, channel, s) for channel in (None, 1, 4)])
        change = (losses[1:] - losses[0]) / 300
        total = {(a, b): change[a, :256].sum() + change[b, 256:].sum() for a in (0, 1) for b in (0, 1)}
        fitting = [choice for choice, value in total.items() if abs(value - found[100][s]) < 1e-12]
        assert len(fitting) == 1
        drawn += fitting
    assert {a for a, _ in drawn} == {b for _, b in drawn} == {0, 1}  # chance takes either channel ...
    assert any(a != b for a, b in drawn)  # ... and anew for the second 256 images


def losses_with_noise_in(net, images, channel, seed):
    net = copy.deepcopy(net).eval()

    def disturb(module, args, output):
        if channel is not None:
            for i in range(len(output)):
                output[i, channel] += noise(seed, i, channel, output.shape[2:])

    net.maxpool.register_forward_hook(disturb)
    with torch.no_grad():
        return F.cross_entropy(net(images.images), torch.tensor(images.labels), reduction="none")


def test_several_random_channels(net, photographs):
    silence(net, 3)
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    pairs = [effect_on(net, photographs, lambda i, pair=pair: pair, 5) for pair in [(1, 3), (1, 4), (3, 4)]]
    two = noise_effect(net, photographs, responses, seeds=[5], n_random=2)
    assert_is_one_of(two.effects["random_inactive"], 0, pairs)
    # More than there are means all of them.
    many = noise_effect(net, photographs, responses, seeds=[5], n_random=9)
    assert torch.equal(many.effects["random_inactive"].loss, many.effects["inactive"].loss)


def test_without_inactive_channels_their_rows_are_missing(resnet, photographs):
    resnet.double()
    responses = collect(resnet, photographs, ["maxpool"])["maxpool"]
    found = noise_effect(resnet, photographs, responses, seeds=[0])
    assert found.inactive == ()
    assert tuple(found.effects) == ("least_active", "random_active")
    (least,) = found.effects["least_active"].channels
    assert responses.positive_count[least] == responses.positive_count.min() > 0
    assert_is(found.effects["least_active"], 0, effect_on(resnet, photographs, lambda i: (least,), 0))


def test_when_every_channel_is_inactive(net, photographs):
    silence(net, *range(6))
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    found = noise_effect(net, photographs, responses, seeds=[0, 1])
    assert found.inactive == tuple(range(6))
    assert tuple(found.effects) == ("inactive", "random_inactive", "least_active")
    for s in (0, 1):
        assert_is(found.effects["inactive"], s, effect_on(net, photographs, lambda i: range(6), s))
        assert_is(found.effects["least_active"], s, effect_on(net, photographs, lambda i: (0,), s))


def test_the_control_takes_13_of_64_active_channels(photographs):
    torch.manual_seed(5)
    net = models.resnet34(64, 4).double().eval()
    net.bn1.bias.data[:] = 1  # all others fire
    silence(net, 0, 7, 63)
    few = Labelled64(photographs.images[:3], photographs.labels[:3])
    responses = collect(net, few, ["maxpool"])["maxpool"]
    found = noise_effect(net, few, responses, seeds=[2])
    active, least = found.effects["random_active"].channels, found.effects["least_active"].channels
    assert found.inactive == (0, 7, 63)
    assert len(set(active)) == len(set(least)) == 13
    assert not set(active) & {0, 7, 63}
    assert set(least) > {0, 7, 63}
    assert_is(found.effects["random_active"], 0, effect_on(net, few, lambda i: active, 2))


def test_other_layers_and_nets(plainnet, photographs):
    plainnet.double()
    plainnet.layer1[0].bn2.bias.data[2] = -1e3
    responses = collect(plainnet, photographs, ["layer1.0"])["layer1.0"]
    found = noise_effect(plainnet, photographs, responses, layer="layer1.0", seeds=[0])
    plainnet.maxpool, plainnet.layer1[0] = (
        torch.nn.Sequential(plainnet.maxpool, plainnet.layer1[0]),
        torch.nn.Identity(),
    )
    assert found.inactive == (2,)
    assert_is(found.effects["inactive"], 0, effect_on(plainnet, photographs, lambda i: (2,), 0))


def test_the_network_and_the_images_are_left_as_they_were(net, photographs):
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    expected = noise_effect(net, photographs, responses, seeds=[0])
    net.train()
    net.layer3.eval()
    modes = [module.training for module in net.modules()]
    state, images = copy.deepcopy(net.state_dict()), photographs.images.clone()
    again = noise_effect(net, photographs, responses, seeds=[0])
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(photographs.images, images)
    assert all(torch.equal(again.effects[row].loss, expected.effects[row].loss) for row in ROWS)


@pytest.mark.parametrize("seeds", [[3], [3, 8, 9]])
def test_intervals_are_over_images(net, photographs, seeds):
    """Student's t over images, of the change of each that is averaged over noise seeds."""
    responses = collect(uncertain(net, photographs), photographs, ["maxpool"])["maxpool"]
    found = noise_effect(net, photographs, responses, seeds=seeds, batch_size=6)
    changed = []
    for row, channels in (("inactive", (1, 4)), ("least_active", (1,))):
        each = torch.stack([changes_on(net, photographs, lambda i, c=channels: c, seed) for seed in seeds]).mean(0)
        for of_images, interval in zip(
            each, (found.effects[row].loss_interval, found.effects[row].top1_interval), strict=True
        ):
            assert (interval.n, interval.of) == (17, "images")
            assert interval.value == pytest.approx(of_images.mean().item(), abs=1e-12)
            changed.append(of_images.any().item())
            if changed[-1]:
                low, high = stats.t.interval(0.95, 16, of_images.mean(), stats.sem(of_images))
                assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-12)
    assert changed[0] and changed[2] and any(changed[1::2])
    for effect in found.effects.values():  # whatever channels chance takes, the value is the mean over noise seeds
        assert effect.loss_interval.value == pytest.approx(effect.loss.mean().item(), abs=1e-12)
        assert effect.top1_interval.value == pytest.approx(effect.top1.mean().item(), abs=1e-12)


def test_images_that_belong_together_count_as_one(net, photographs):
    """Four crops of each of four photographs, in any order: Student's t over the means of photographs."""
    some = Labelled64(photographs.images[:16], photographs.labels[:16])
    groups = [9, 2, 5, 7] * 3 + [7, 5, 2, 9]
    responses = collect(uncertain(net, some), some, ["maxpool"])["maxpool"]
    alone, together = (noise_effect(net, some, responses, seeds=[3, 8], groups=each) for each in (None, groups))
    each = torch.stack([changes_on(net, some, lambda i: (1, 4), seed)[0] for seed in (3, 8)]).mean(0)
    means = [each[[i for i, group in enumerate(groups) if group == photograph]].mean() for photograph in (2, 5, 7, 9)]
    low, high = stats.t.interval(0.95, 3, np.mean(means), stats.sem(means))
    interval = together.effects["inactive"].loss_interval
    assert interval[:3] == pytest.approx((each.mean().item(), low, high), abs=1e-12)
    assert interval[3:] == (4, "photographs")
    other = alone.effects["inactive"].loss_interval
    assert other[3:] == (16, "images") and other.value == pytest.approx(interval.value, abs=1e-12)
    assert abs(other.high - interval.high) > 1e-6
    assert torch.equal(alone.effects["inactive"].loss, together.effects["inactive"].loss)
    numbered = noise_effect(net, some, responses, seeds=[3, 8], groups=range(16))
    assert numbered.effects["inactive"].loss_interval == other


def test_mean_over_groups_of_different_sizes():
    """By hand: the sums of deviations from the mean, per group."""
    values = torch.tensor([1.0, 2.0, 6.0, 3.0, 8.0], dtype=torch.float64)
    found = kernel.over_groups(values, torch.tensor([1, 1, 1, 4, 0]))
    # the mean is 4; groups deviate by -3 - 2 + 2 = -3, by -1 and by 4: squares add up to 26
    reach = stats.t.ppf(0.975, 2) * math.sqrt(26 * 3 / 2) / 5
    assert found[:3] == pytest.approx((4, 4 - reach, 4 + reach)) and found[3:] == (3, "photographs")


def test_a_loss_that_is_not_finite_names_the_image(net, photographs):
    images = Labelled64(photographs.images.clone(), photographs.labels)
    images.images[5] = 1
    net.fc.weight.data *= 1e10  # finite in the stem, infinite in the logits
    responses = collect(net, images, ["maxpool"])["maxpool"]

    def blinding(seen):
        white = seen.amin((1, 2, 3), keepdim=True) == 1
        return torch.where(white, seen * 1e300, seen)

    for batch_size in (1, 4, 64):
        with pytest.raises(RfvizError, match=r"^image 5: the loss is not finite") as error:
            noise_effect(net, images, responses, batch_size=batch_size, preprocess=blinding)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("images_seen", "options", "message"),
    [
        (16, {}, "the responses are of 16 images, but 17 were given"),
        (17, {"seeds": []}, r"number of seeds \(0\)"),
        (17, {"n_random": 0}, r"n_random \(0\)"),
        (17, {"batch_size": 0}, r"batch_size \(0\)"),
        (17, {"layer": "maxpol"}, "unknown layer 'maxpol'. Did you mean 'maxpool'"),
    ],
)
def test_impossible_requests_are_refused(net, photographs, images_seen, options, message):
    responses = collect(net, photographs, ["maxpool"])["maxpool"]
    responses = dataclasses.replace(responses, image_count=images_seen)
    with pytest.raises(RfvizError, match=message):
        noise_effect(net, photographs, responses, **options)


# ------------------------------------------------------------------------------------------------------ doses


def measured(net, images, **options):
    pooled = collect(net, images, ["maxpool"], mean_stimulus=False, preprocess=IMAGENET)["maxpool"]
    strength = read_strength(net, net.network.readers)["layer1.0.conv1"]
    return noise_dose(net, images, pooled, strength, preprocess=IMAGENET, **options), pooled, strength


@pytest.mark.parametrize("batch_size", [4, pytest.param(64, marks=pytest.mark.thorough)])
def test_every_number_is_that_of_a_loop(resnet, tiles, batch_size):
    net, images = resnet.double(), Every5th(tiles)
    net.bn1.bias.data[[1, 4]] = -1e3
    found, _, strength = measured(net, images, doses=(0.5, 2.0), seeds=(3, 5), batch_size=batch_size)
    assert (found.tested, found.inactive) == ((1, 4), True)
    assert found.matched == matched_active((1, 4), (1, 4), strength)
    clean = losses(net, images)
    for group, channels in (("tested", found.tested), ("matched", found.matched)):
        for i, dose in enumerate(found.doses):
            each = [losses(net, images, adding_noise(channels, seed, dose)) - clean for seed in (3, 5)]
            torch.testing.assert_close(found.loss[group][i], torch.stack(each).mean(0))
    for channel in range(6):
        torch.testing.assert_close(found.single[channel], losses(net, images, adding_noise([channel], 3)) - clean)


def test_without_inactive_channels_the_least_active_stand_in(resnet, tiles):
    found, pooled, _ = measured(resnet.double(), Every5th(tiles), doses=(1.0,), at_most=4)
    assert not found.inactive
    assert found.tested == (int(pooled.positive_count.argmin()),) == silent.tested_channels(pooled)
    assert found.single.shape == (6, 4)
    assert found.loss["tested"].shape == (1, 4)


def test_noise_grows_with_the_dose_and_is_else_the_same():
    maps = torch.zeros(2, 3, 4, 4)
    one, two = (adding_noise([1], 7, sigma)(maps.clone(), [5, 9]) for sigma in (1.0, 2.0))
    torch.testing.assert_close(one[0, 1], noise(7, 5, 1, (4, 4)))
    torch.testing.assert_close(one[1, 1], noise(7, 9, 1, (4, 4)))
    torch.testing.assert_close(two, 2 * one)
    assert one[:, [0, 2]].abs().max() == 0


def test_the_dose_refuses_responses_of_other_images(resnet, tiles):
    images = Every5th(tiles)
    _, pooled, strength = measured(resnet.double(), images, doses=(1.0,), at_most=2)
    images.images.pop()
    with pytest.raises(RfvizError, match=f"of {len(images) + 1} images, but {len(images)} were given"):
        noise_dose(resnet, images, pooled, strength)


@pytest.mark.parametrize("options", [{"doses": ()}, {"seeds": ()}, {"doses": (-1.0,)}])
def test_impossible_doses_are_refused(resnet, tiles, options):
    with pytest.raises(RfvizError, match="at least one of each"):
        measured(resnet, Every5th(tiles), **options)


# -- other disturbances than noise -------------------------------------------------------------------------------------


def test_every_disturbance_is_that_of_its_change(net, tiles):
    """In a network with two silent channels, planted; noise seed by noise seed."""
    images, layers = Every5th(tiles), net.network.stream
    dose, *_ = measured(net, images, seeds=[4, 5], at_most=9)
    chosen, options = intervene.spread(len(images), 9), {"preprocess": IMAGENET}
    found = kernel.disturbances(net, images, layers, dose, skips=True, seeds=[4, 5], at_most=9, **options)
    assert list(found.tested) == list(found.matched) == list(kernel.VARIANTS)
    for group, channels in (("tested", dose.tested), ("matched", dose.matched)):
        each = {variant: [] for variant in kernel.VARIANTS}
        for seed in (4, 5):
            noisy = adding_noise(channels, seed)
            each["noise"].append(noisy)
            each["scaled"].append(adding_noise(channels, seed, found.deviation))
            each["skip"].append(intervene.into_skip(net, "maxpool", "layer1.0", noisy))
            each["convolutions"].append(intervene.into_convolutions(net, "maxpool", "layer1.0", noisy))
        each["offset"].append(intervene.adding(channels, kernel.OFFSET))
        each["cut"].append(intervene.cutting(net, layers, channels))
        for variant, changes in each.items():
            losses_of = intervene.loss_changes(
                net, images, "maxpool", dict(enumerate(changes)), indices=chosen, **options
            )
            torch.testing.assert_close(getattr(found, group)[variant], torch.stack(list(losses_of.values())).mean(0))
        torch.testing.assert_close(getattr(found, group)["noise"], dose.loss[group][dose.doses.index(1.0)])
    own = intervene.deviation(net, images, "maxpool", [0, 2, 3, 5], indices=chosen, **options)
    assert found.deviation == own > 0
    assert pytest.approx(noise(0, 0, 0, (500, 500)).mean().item(), abs=0.01) == kernel.OFFSET


def test_without_skips_there_is_one_path(plainnet, tiles):
    net, images = silence(plainnet.double(), 1), Every5th(tiles)
    dose, *_ = measured(net, images)
    found = kernel.disturbances(net, images, net.network.stream, dose, skips=False, preprocess=IMAGENET)
    assert list(found.tested) == list(found.matched) == ["noise", "offset", "scaled"]
