import torch
from torch import nn

from sixfold.lottery.line import between, recalibrate


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).double()


def test_places_on_the_line() -> None:
    start, end, middle = network().state_dict(), network().state_dict(), network()
    end["1.num_batches_tracked"] += 7
    between(middle, start, end, 0.25)
    for name, tensor in middle.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, 0.75 * start[name] + 0.25 * end[name])
        else:
            assert torch.equal(tensor, start[name])


def test_statistics_are_those_of_all_calibration_images_together() -> None:
    model = network()
    batches = [torch.randn(5, 2, 4, 4, dtype=torch.float64) for _ in range(3)]
    recalibrate(model, batches)
    conv, norm = model[0], model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    outputs = [conv(images).detach() for images in batches]
    mean = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    spread = torch.stack([out.var((0, 2, 3)) for out in outputs]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, spread)
    assert norm.momentum == 0.1
    assert not model.training
