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


def test_synchronising_keeps_the_state_keys():
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    synchronise_batchnorm(module)
    assert list(module.state_dict()) == list(before)
    module.eval()
    torch.testing.assert_close(module(images()), network().eval()(images()))
