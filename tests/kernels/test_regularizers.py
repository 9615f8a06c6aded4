"""What keeps an image in bounds, against torch's Adam, finite differences and plain loops."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rfviz.errors import RfvizError
from rfviz.kernels.maximization import maximize
from rfviz.kernels.maximization.regularizers import L2, Jitter, Regularizer, TotalVariation
from rfviz.nets import receptive_field
from rfviz.nets.cone import Cone

LAYER, SIDE = "layer1.0", 27
CHANNELS = [1, 5, 3]


@pytest.fixture
def net(resnet):
    assert receptive_field.of(resnet, LAYER).size == SIDE
    return resnet.double()


def ascent(net, channel, *, decay=0.0, margin=0, penalty=None, shifts=None, steps=31):
    """Maximise one channel with torch's own Adam: the field, and the objective without penalties.

    At every step the network sees a window at `margin` plus what `shifts(step)` gives for y and x.
    """
    forward = Cone(net, LAYER, before_relu=True)
    around = SIDE + 2 * margin
    image = torch.zeros(1, 3, around, around, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([image], lr=0.1, weight_decay=decay)
    curve = []

    def activation(y=0, x=0):
        window = image[:, :, margin + y : margin + y + SIDE, margin + x : margin + x + SIDE]
        return forward(window)[0, channel, 0, 0]

    for step in range(steps):
        value = activation(*shifts(step)) if shifts else activation()
        curve.append(value.item())
        loss = -value + (penalty(image) if penalty else 0)
        (image.grad,) = torch.autograd.grad(loss, image)
        adam.step()
    curve.append(activation().item())
    field = image.detach()[0, :, margin : margin + SIDE, margin : margin + SIDE]
    return field, torch.tensor(curve, dtype=torch.float64)


def assert_is(found, i, expected, atol):
    field, curve = expected
    torch.testing.assert_close(found.images[i], field, rtol=0, atol=atol)
    torch.testing.assert_close(found.activations[:, i], curve, rtol=0, atol=atol)


def random_images(number, side, seed=0):
    return torch.randn(number, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------------- weight decay


def test_the_l2_penalty_equals_a_loop():
    images = random_images(3, 4)
    for i, image in enumerate(images):
        total = sum(value**2 for value in image.flatten().tolist())
        assert L2(0.3).penalty(images)[i].item() == pytest.approx(0.3 / 2 * total, rel=1e-12)
    assert L2() == L2(1e-6)


@pytest.mark.parametrize("weight", [0.0, 1e-6, 1e-2, 1.0, 30.0])
def test_l2_is_adams_coupled_weight_decay(net, weight):
    found = maximize(net, LAYER, CHANNELS, regularizers=[L2(weight)])
    for i, channel in enumerate(CHANNELS):
        assert_is(found, i, ascent(net, channel, decay=weight), 1e-12)
    assert found.images.abs().amax() > 0.02


def test_the_default_is_the_papers(net):
    default, written_out = (maximize(net, LAYER, CHANNELS, **o) for o in ({}, {"regularizers": [L2(1e-6)]}))
    assert torch.equal(default.images, written_out.images)
    none = maximize(net, LAYER, CHANNELS, regularizers=[])
    assert not torch.equal(default.images, none.images)
    for i, channel in enumerate(CHANNELS):
        assert_is(none, i, ascent(net, channel), 1e-12)


# ---------------------------------------------------------------------------------------------------- total variation


def total_variation(image):
    """The sum of absolute differences between neighbours, one by one."""
    colours, height, width = image.shape
    total = 0
    for c, y, x in itertools.product(range(colours), range(height), range(width)):
        if y + 1 < height:
            total = total + (image[c, y + 1, x] - image[c, y, x]).abs()
        if x + 1 < width:
            total = total + (image[c, y, x + 1] - image[c, y, x]).abs()
    return total


def total_variation_of_slices(images):
    down, across = images[..., 1:, :] - images[..., :-1, :], images[..., 1:] - images[..., :-1]
    return down.abs().sum() + across.abs().sum()


def test_total_variation_equals_a_loop_and_its_gradient_a_finite_difference():
    images, weight = random_images(2, 5).requires_grad_(True), 0.7
    penalty = TotalVariation(weight).penalty(images)
    assert penalty.shape == (2,)
    (gradient,) = torch.autograd.grad(penalty.sum(), images)
    for i, image in enumerate(images.detach()):
        torch.testing.assert_close(penalty[i].detach(), weight * total_variation(image), rtol=0, atol=1e-12)
        for c, y, x in itertools.product(range(3), range(5), range(5)):
            step = torch.zeros_like(image)
            step[c, y, x] = 1e-5  # less than any difference between neighbours: no kink in between
            rise = total_variation(image + step) - total_variation(image - step)
            assert gradient[i, c, y, x].item() == pytest.approx(weight * rise.item() / 2e-5, abs=1e-8)


def test_a_flat_image_has_no_total_variation():
    flat = torch.tensor([0.2, -3.0, 7.0], dtype=torch.float64).reshape(1, 3, 1, 1).expand(2, 3, 6, 6).clone()
    flat.requires_grad_(True)
    penalty = TotalVariation(2.0).penalty(flat)
    assert not penalty.any()
    assert not torch.autograd.grad(penalty.sum(), flat)[0].any()


def test_total_variation_in_the_ascent(net):
    weight = 0.01
    found = maximize(net, LAYER, CHANNELS, regularizers=[TotalVariation(weight)])
    for i, channel in enumerate(CHANNELS):
        expected = ascent(net, channel, penalty=lambda image: weight * total_variation_of_slices(image))
        assert_is(found, i, expected, 1e-9)


def test_total_variation_smooths(net):
    roughness, activations = [], []
    for weight in (0, 0.003, 0.03):
        found = maximize(net, LAYER, CHANNELS, regularizers=[TotalVariation(weight)])
        roughness.append(torch.stack([total_variation_of_slices(image) / image.norm() for image in found.images]))
        activations.append(found.activations[-1])
    for rougher, smoother in itertools.pairwise(roughness):
        assert (smoother < 0.95 * rougher).all()
    for higher, lower in itertools.pairwise(activations):
        assert (lower < higher).all()  # what smoothness costs
    assert (activations[-1] > found.activations[0] + 1).all()  # the objective is still driven


# ------------------------------------------------------------------------------------------------------------- jitter


def places(pixels, side=7):
    """An image of which every window tells where it was cut out."""
    rows = torch.arange(side + 2 * pixels, dtype=torch.float64)
    return torch.stack(
        [rows[:, None].expand(-1, len(rows)), rows.expand(len(rows), -1), 0 * rows.expand(len(rows), -1)]
    )


def shifts(jitter, channels, step):
    """Shift (y, x) of every channel, each in -pixels to pixels, read off what the network sees."""
    image = places(jitter.pixels)
    images = image.expand(len(channels), -1, -1, -1).clone()
    seen = jitter.view(images, torch.tensor(channels), step)
    assert seen.shape == (len(channels), 3, 7, 7)
    found = []
    for window in seen:
        y, x = int(window[0, 0, 0]), int(window[1, 0, 0])
        assert torch.equal(window, image[:, y : y + 7, x : x + 7])  # a shift, and nothing else
        found.append((y - jitter.pixels, x - jitter.pixels))
    return found


@pytest.mark.parametrize("pixels", [1, 2])
def test_every_shift_in_the_range_occurs_as_often(pixels):
    drawn = [shift for step in range(40) for shift in shifts(Jitter(pixels), range(50), step)]
    side = 2 * pixels + 1
    allowed = range(-pixels, pixels + 1)
    counts = {shift: drawn.count(shift) for shift in itertools.product(allowed, allowed)}
    assert sum(counts.values()) == len(drawn) == 2000
    expected = 2000 / side**2
    # Of 25 binomial counts, none is 5 standard deviations away.
    assert all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


def test_a_shift_depends_on_seed_channel_and_step_only():
    keys = [(seed, channel, step) for seed in (0, 1, 2) for channel in range(12) for step in range(31)]
    alone = {key: shifts(Jitter(50, key[0]), [key[1]], key[2])[0] for key in keys}
    torch.manual_seed(7)
    state = torch.get_rng_state()
    for seed in (0, 1, 2):
        for step in (30, 3, 0):
            assert shifts(Jitter(50, seed), range(12), step) == [alone[seed, channel, step] for channel in range(12)]
            together = shifts(Jitter(50, seed), [9, 0, 0, 11, 4], step)
            assert together == [alone[seed, channel, step] for channel in (9, 0, 0, 11, 4)]
    assert torch.equal(torch.get_rng_state(), state)
    # Of about 10,000 shifts, the 1,116 keys choose as chance does: each of the three matters, in its own place.
    assert len(set(alone.values())) > 1000


@settings(max_examples=30, deadline=None, database=None)
@given(st.integers(0, 9), st.integers(0, 2**40), st.integers(0, 3000), st.integers(0, 5000))
def test_a_shift_stays_in_its_range(pixels, seed, channel, step):
    ((y, x),) = shifts(Jitter(pixels, seed), [channel], step)
    assert -pixels <= y <= pixels and -pixels <= x <= pixels


@pytest.mark.parametrize("pixels", [1, 4])
def test_jitter_in_the_ascent(net, pixels):
    jitter = Jitter(pixels, seed=3)
    assert jitter.margin == pixels
    found = maximize(net, LAYER, CHANNELS, regularizers=[jitter])
    assert found.images.shape == (3, 3, SIDE, SIDE)
    for i, channel in enumerate(CHANNELS):

        def shifts_of(step, channel=channel):
            return shifts(jitter, [channel], step)[0]

        assert_is(found, i, ascent(net, channel, margin=pixels, shifts=shifts_of), 1e-9)


def test_jitter_on_a_canvas(net):
    found = maximize(net, LAYER, [1], regularizers=[Jitter(2)], canvas=36)
    assert found.images.shape == (1, 3, 36, 36)
    assert found.activations[-1] > found.activations[0] + 1


def test_jitter_does_not_depend_on_the_batch(net):
    together = maximize(net, LAYER, regularizers=[Jitter(2)], steps=9)
    for channels, batch_size in [(range(6), 1), ([5, 0, 3, 3], 3), ([2], 64)]:
        found = maximize(net, LAYER, channels, regularizers=[Jitter(2)], steps=9, batch_size=batch_size)
        torch.testing.assert_close(found.images, together.images[list(channels)], rtol=0, atol=1e-12)
        torch.testing.assert_close(found.activations, together.activations[:, list(channels)], rtol=0, atol=1e-12)
    other_seed = maximize(net, LAYER, regularizers=[Jitter(2, seed=1)], steps=9)
    assert all((one - other).abs().max() > 0.01 for one, other in zip(together.images, other_seed.images, strict=True))


def test_no_pixels_are_no_jitter(net):
    without = maximize(net, LAYER, CHANNELS, regularizers=[L2()])
    found = maximize(net, LAYER, CHANNELS, regularizers=[L2(), Jitter(0, seed=5)])
    assert torch.equal(found.images, without.images)
    assert torch.equal(found.activations, without.activations)


# ------------------------------------------------------------------------------------------------------------ together


def test_all_three_together(net):
    jitter = Jitter(2, seed=1)
    found = maximize(net, LAYER, CHANNELS, regularizers=[L2(0.1), jitter, TotalVariation(0.003)])
    for i, channel in enumerate(CHANNELS):

        def penalty(image):
            return 0.003 * total_variation_of_slices(image)  # of the whole image, its margin included

        def shifts_of(step, channel=channel):
            return shifts(jitter, [channel], step)[0]

        expected = ascent(net, channel, decay=0.1, margin=2, penalty=penalty, shifts=shifts_of)
        assert_is(found, i, expected, 1e-9)


@pytest.mark.parametrize("regularizer", [L2(5.0), TotalVariation(0.3)])
def test_the_curve_holds_the_objective_without_penalties(net, regularizer):
    found = maximize(net, LAYER, CHANNELS, regularizers=[regularizer], steps=6)
    assert (regularizer.penalty(found.images) > 1).all()
    last = Cone(net, LAYER, before_relu=True)(found.images)[range(3), CHANNELS, 0, 0]
    torch.testing.assert_close(found.activations[-1], last.detach(), rtol=0, atol=1e-12)


def test_two_jitters_add_up_in_any_order(net):
    one, other = Jitter(1, seed=1), Jitter(3, seed=2)
    found = maximize(net, LAYER, CHANNELS, regularizers=[one, other])
    assert found.images.shape == (3, 3, SIDE, SIDE)
    for i, channel in enumerate(CHANNELS):

        def shifts_of(step, channel=channel):
            return [a + b for a, b in zip(shifts(one, [channel], step)[0], shifts(other, [channel], step)[0])]  # noqa: B905

        assert_is(found, i, ascent(net, channel, margin=4, shifts=shifts_of), 1e-9)
    swapped = maximize(net, LAYER, CHANNELS, regularizers=[other, one])
    assert torch.equal(swapped.images, found.images)
    assert torch.equal(swapped.activations, found.activations)


def test_views_are_taken_one_after_the_other(net):
    class Doubled(Regularizer):
        def view(self, images, channels, step):
            return 2 * images

    class PlusStep(Regularizer):
        def view(self, images, channels, step):
            return images + step * channels.reshape(-1, 1, 1, 1)

    forward = Cone(net, LAYER, before_relu=True)
    for regularizers, seen in [
        ([Doubled(), PlusStep()], lambda image, step, channel: 2 * image + step * channel),
        ([PlusStep(), Doubled()], lambda image, step, channel: 2 * (image + step * channel)),
    ]:
        found = maximize(net, LAYER, CHANNELS, regularizers=regularizers, steps=3)
        for i, channel in enumerate(CHANNELS):
            image = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
            adam = torch.optim.Adam([image], lr=0.1)
            for step in range(3):
                activation = forward(seen(image, step, channel))[0, channel, 0, 0]
                assert found.activations[step, i].item() == pytest.approx(activation.item(), abs=1e-9)
                (image.grad,) = torch.autograd.grad(-activation, image)
                adam.step()
            torch.testing.assert_close(found.images[i], image.detach()[0], rtol=0, atol=1e-9)


def test_a_regularizer_of_ones_own(net):
    class Ball(Regularizer):
        """Takes away what leads further than 1 from grey."""

        def penalty(self, images):
            return 0.5 * (images.abs() - 1).clamp(min=0).sum((1, 2, 3))

    found = maximize(net, LAYER, CHANNELS, regularizers=[Ball()])
    for i, channel in enumerate(CHANNELS):
        assert_is(found, i, ascent(net, channel, penalty=lambda x: Ball().penalty(x).sum()), 1e-9)


def test_the_base_does_nothing(net):
    nothing = maximize(net, LAYER, CHANNELS, regularizers=[])
    found = maximize(net, LAYER, CHANNELS, regularizers=[Regularizer()])
    assert torch.equal(found.images, nothing.images)
    assert torch.equal(found.activations, nothing.activations)
    images = random_images(4, 5)
    assert Regularizer.margin == 0
    assert torch.equal(Regularizer().penalty(images), torch.zeros(4, dtype=torch.float64))
    assert Regularizer().view(images, torch.arange(4), 0) is images


@pytest.mark.parametrize(("options", "message"), [
    ({"pixels": -1}, "pixels of Jitter is -1"),
    ({"pixels": 1.5}, "pixels of Jitter is 1.5"),
    ({"pixels": 1, "seed": -1}, "seed of Jitter is -1"),
])  # fmt: skip
def test_impossible_jitter_is_refused(options, message):
    with pytest.raises(RfvizError, match=message):
        Jitter(**options)
