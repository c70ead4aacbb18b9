import torch
from ranks import run_ranks
from torch import nn

from nrh_dist.engine.dist import Place, sum_over_ranks, synchronise_batchnorm

SPLITS = {2: [[0, 1, 2, 3, 4], [5, 6]], 3: [[0, 1, 2, 3], [4, 5, 6], []]}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ELU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2)
    ).double()


def images() -> torch.Tensor:
    return torch.randn(7, 3, 9, 9, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 3 + 100


def step(module: nn.Module, input: torch.Tensor) -> dict[str, torch.Tensor]:
    module.train()
    input = input.clone().requires_grad_()
    output = module(input)
    (output**3).sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"output": output.detach(), "input": input.grad, **gradients, **dict(module.named_buffers())}


def synchronised_step(place: Place) -> dict[str, torch.Tensor]:
    module = network()
    synchronise_batchnorm(module)
    own = images()[SPLITS[place.world][place.rank]]
    result = step(module, own)
    for name, _ in module.named_parameters():
        result[name] = sum_over_ranks(result[name], place)
    return result


def check(world: int, folder) -> None:
    """Statistics, outputs and gradients of ragged and empty shards equal those of the whole batch on one process."""
    whole = step(network(), images())
    parts = run_ranks(synchronised_step, world, folder)
    for name in whole:
        if name in ("output", "input"):
            together = torch.cat([part[name] for part in parts])
            torch.testing.assert_close(together, whole[name], rtol=1e-9, atol=1e-9)
        else:
            for part in parts:
                torch.testing.assert_close(part[name], whole[name], rtol=1e-9, atol=1e-9)


def test_two_ragged_ranks_equal_one(tmp_path):
    check(2, tmp_path)


def test_a_rank_without_images_changes_nothing(tmp_path):
    check(3, tmp_path)


def half_images() -> torch.Tensor:
    return ((images() - 100) / 3).bfloat16().contiguous(memory_format=torch.channels_last)


def half_network() -> nn.Module:
    """BatchNorms in float32 between convolutions in bfloat16, as under autocast."""
    module = network().float().to(memory_format=torch.channels_last)
    module[0], module[3] = module[0].bfloat16(), module[3].bfloat16()
    return module


def synchronised_half_step(place: Place) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A step of the whole network, and the statistics of one BatchNorm whose inputs bfloat16 holds exactly."""
    module, layer = half_network(), nn.BatchNorm2d(3, momentum=1.0)
    synchronise_batchnorm(module)
    synchronise_batchnorm(layer)
    result = step(module, half_images()[SPLITS[place.world][place.rank]])
    for name, _ in module.named_parameters():
        result[name] = sum_over_ranks(result[name], place)
    layer(images().bfloat16()[SPLITS[place.world][place.rank]])
    return result, layer.state_dict()


def test_bfloat16_inputs_keep_float32_statistics(tmp_path):
    """Two ranks against torch's own on the whole batch; 2 % of the largest value is a few roundings of 8 bits."""
    whole = step(half_network(), half_images())
    exact = nn.BatchNorm2d(3, momentum=1.0).double()
    exact(images().bfloat16().double())
    (one, layer), (two, _) = run_ranks(synchronised_half_step, 2, tmp_path)
    for name, expected in whole.items():
        found = torch.cat([one[name], two[name]]) if name in ("output", "input") else one[name]
        assert found.dtype == expected.dtype, name
        if name in ("0.bias", "3.bias"):  # in front of a BatchNorm: rounding around a gradient of zero
            continue
        assert (found - expected).abs().max() <= 0.02 * expected.abs().max(), name
        if "running" in name:
            assert torch.equal(found, two[name]), name
    torch.testing.assert_close(layer["running_mean"].double(), exact.running_mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(layer["running_var"].double(), exact.running_var, rtol=1e-5, atol=0)


def test_synchronising_keeps_the_state_keys():
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    synchronise_batchnorm(module)
    assert list(module.state_dict()) == list(before)
    module.eval()
    torch.testing.assert_close(module(images()), network().eval()(images()))
