import pytest
import torch
from torch import nn

from nrh_dist import losses
from nrh_dist.errors import UserError
from nrh_dist.models import build, freeze

POLICIES = ["encoder", "all", "none", "encoder_until:3", "encoder_until:13"]
MODELS = [
    ("ptc", {}),
    ("ptc_dih", {}),
    ("ptc_att_dih", {}),
    ("gated", {}),
    ("gated", {"fusion_width": 16, "correction": "pixels"}),
]


def train(model, name, image, mask):
    """Three real steps of Adam, everything in train mode."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(learning, lr=1e-2)
    model.train()
    for _ in range(3):
        optimiser.zero_grad()
        if name == "ptc":
            loss = losses.focal(model(image), torch.randint(3, (len(image), 56, 56))).sum()
        else:
            prediction = model(image, None)
            loss = losses.mse(prediction.image, image.flip(0)).sum()
            if prediction.mask_logits is not None:
                loss = loss + losses.gate(prediction.mask_logits, mask).sum()
        loss.backward()
        optimiser.step()


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def frozen_keys(model, policy):
    """What the policy promises to leave alone, parameters and BatchNorm buffers, by name."""
    if policy == "none":
        return set()
    detector = getattr(model, "detector", model)
    prefix = "" if detector is model else "detector."
    keys = [prefix + key for key in detector.state_dict()]
    if policy.startswith("encoder_until"):
        count = int(policy.split(":")[1])
        positions = [i for i, layer in enumerate(detector.encoder.vgg) if isinstance(layer, nn.Conv2d)][:count]
        return {f"{prefix}encoder.vgg.{i}.{part}" for i in positions for part in ("weight", "bias")}
    frozen = (f"{prefix}encoder.",) + ((f"{prefix}decoder.body.",) if policy == "all" else ())
    return {key for key in keys if key.startswith(frozen)}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("name", "changes"), MODELS)
def test_training_moves_what_learns_and_not_one_bit_of_what_is_frozen(options, image, mask, name, changes, policy):
    model = build(options(name, freeze=policy, initialisation="glorot", **changes), 64)
    before = snapshot(model)
    train(model, name, image, mask)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    frozen = frozen_keys(model, policy)
    assert frozen <= before.keys()
    assert not moved & frozen
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (key not in frozen), key
    # A ReLU that never opens leaves a few weights behind, so most must have moved; every BatchNorm must have counted.
    learning = before.keys() - frozen
    assert len(moved & learning) > 0.9 * len(learning)
    assert all(key in moved for key in learning if key.endswith("running_mean"))
    assert any(".head." in key or key.startswith("decoder.head") for key in moved)


def test_training_moves_nothing_in_two_stage(options, image):
    model = build(options("two_stage"), 64)
    before = snapshot(model)
    model.train()
    model(image, None)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["ptc_dih", "ptc_att_dih", "gated"])
def test_a_frozen_encoder_runs_in_eval_mode_without_a_graph(options, image, name):
    model = build(options(name), 64).train()
    assert not any(module.training for module in model.detector.encoder.modules())
    assert model.harmoniser.training
    assert not model.detector.encoder(image).requires_grad


def test_frozen_convolutions_build_no_graph_below_those_that_learn(options, image):
    encoder = build(options("ptc", freeze="encoder_until:2"), 64).encoder.train()
    assert not encoder.vgg[:5](image).requires_grad
    assert encoder.vgg[:6](image).requires_grad


def test_an_unknown_policy_is_refused(options):
    detector = build(options("ptc"), 64)
    with pytest.raises(UserError, match=r"model\.freeze=decoder: .*encoder_until:N"):
        freeze.apply(detector, "decoder")
