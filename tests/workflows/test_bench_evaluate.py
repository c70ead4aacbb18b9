import math

import pytest

from nrh_dist.engine import checkpoint, score
from nrh_dist.engine.assemble import trained_model
from nrh_dist.engine.features import digest_of
from nrh_dist.workflows import bench_evaluate
from nrh_dist.workflows.bench_evaluate import MODELS, Settings
from nrh_dist.workflows.sample import random_checkpoint

SMALL = Settings(size=64, width=0.1, batches=1, rounds=1)


def test_the_models_are_evaluated_as_others_and_share_their_encoder(tmp_path):
    paths = [random_checkpoint(tmp_path, name, SMALL.width, SMALL.size) for name in MODELS]
    assert [checkpoint.fault(path) for path in paths] == [None] * 4
    assert [entry.model for entry in score.entries(list(map(str, paths)))] == ["identity", *MODELS]
    encoders = [getattr(trained_model(path)[0], "detector", None) for path in paths]
    assert len({digest_of(one.encoder) for one in encoders if one is not None}) == 1


@pytest.mark.slow
def test_a_small_bench():
    figures = bench_evaluate.bench(print, SMALL)
    errors = ["MSE and PSNR of 8 outputs", "MSE and PSNR of 16 outputs"]
    assert [figure.name for figure in figures] == [*errors, "four models together", "two actors"]
    assert [figure.target for figure in figures] == [5.0, 5.0, 1.5, 0.9]
    assert all("width 0.1" in figure.unit for figure in figures[2:]), "what the models are decides the numbers"
    assert all(math.isfinite(figure.ratio) and figure.ratio > 0.1 for figure in figures)
