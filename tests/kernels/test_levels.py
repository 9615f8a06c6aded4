"""Neurons near a given response, and maps of where a channel fires, against all responses at once."""

import torch

from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels.responses import levels
from rfviz.kernels.responses.top_stimuli import EMPTY
from rfviz.nets import models, receptive_field
from rfviz.nets.graph import ForwardPass

LAYER = "layer1.0"


def all_responses(net: models.ResidualNet, images: Evaluation) -> torch.Tensor:
    found = []
    with torch.inference_mode():
        batch = torch.stack([images[i][0] for i in range(len(images))])
        ForwardPass(net, [LAYER])(IMAGENET(batch), lambda _, response: found.append(response.clone()))
    return found[0]


def test_the_nearest_neurons(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    """One per image, of those whose field lies in it; the same for any size of batch."""
    responses = all_responses(resnet, tiles)
    count, channels = responses.shape[:2]
    field = receptive_field.of(resnet, LAYER)
    wanted = responses.amax((0, 2, 3))[:, None] * torch.tensor([0.5, 0.1])
    inside = field.whole(responses.shape[2], 64)
    for batch in (3, 64):
        images, positions = levels.nearest(resnet, tiles, LAYER, wanted, 3, preprocess=IMAGENET, batch_size=batch)
        assert images.shape == (channels, 2, 3) and positions.shape == (channels, 2, 3, 2)
        for channel in range(channels):
            for number, level in enumerate(wanted[channel].tolist()):
                best = []
                for image in range(count):
                    seen = responses[image, channel, inside, inside]
                    away = torch.where(seen > 0, (seen - level).abs(), torch.inf)
                    y, x = divmod(int(away.argmin()), away.shape[1])
                    best.append((away[y, x].item(), image, [y + inside.start, x + inside.start]))
                expected = sorted(each for each in best if each[0] < torch.inf)[:3]
                there = images[channel, number] != EMPTY
                assert images[channel, number][there].tolist() == [image for _, image, _ in expected]
                assert positions[channel, number][there].tolist() == [place for *_, place in expected]


def test_a_channel_that_never_fires_is_near_nothing(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    resnet.layer1[0].bn2.weight.data[1] = 0
    resnet.layer1[0].bn2.bias.data[1] = -1e6
    images, positions = levels.nearest(resnet, tiles, LAYER, torch.ones(6, 1), 2, preprocess=IMAGENET)
    assert (images[1] == EMPTY).all() and (positions[1] == EMPTY).all()


def test_maps(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    responses = all_responses(resnet, tiles)
    found = levels.maps(resnet, tiles, LAYER, {2: [0, 3], 5: [3]}, preprocess=IMAGENET)
    assert found.keys() == {(2, 0), (2, 3), (5, 3)}
    for (image, channel), fires in found.items():
        torch.testing.assert_close(fires, responses[image, channel], rtol=1e-4, atol=1e-5)
    assert levels.maps(resnet, tiles, LAYER, {}) == {}
