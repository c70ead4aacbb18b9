"""The makers: every pair once, whatever worker dies, and errors as they were raised."""

from itertools import islice

import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError
from slow_maker import DyingMaker, FullDisk, Stillborn

from nrh_dist.data import coco, coco_exp, synthetic
from nrh_dist.data.coco_exp import Settings
from nrh_dist.data.pairs import eligible, plan
from nrh_dist.errors import UserError
from nrh_dist.launch import makers


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    out = tmp_path_factory.mktemp("sample")
    synthetic.write_sample(out, say=lambda line: None, train_photos=12, test_photos=1)
    instances = coco.load(out / "coco/annotations/instances_train2017.json")
    return list(islice(plan(eligible(instances, out / "coco/train2017")[0], 0), 40))


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setattr(makers, "CHUNK", 4)
    coco_exp.prepare(tmp_path / "out")
    return tmp_path / "out"


def made(pairs, out, workers):
    with makers.makers(workers, Settings(0), out) as run:
        return sorted((one for outcomes in run(makers.chunks(pairs)) for one in outcomes), key=lambda one: one.index)


def test_chunks_hold_every_pair_once(pairs):
    assert [pair for chunk in makers.chunks(pairs) for pair in chunk] == pairs
    assert list(makers.chunks([])) == []


def test_two_workers_do_what_one_does(pairs, out, ray_session):
    assert made(pairs, out, 2) == made(pairs, out, 1)


def test_a_killed_worker_loses_nothing(pairs, out, ray_session, monkeypatch):
    expected = made(pairs, out, 1)
    monkeypatch.setattr(makers, "Maker", DyingMaker)
    deaths = out.with_name("out-deaths")
    deaths.write_text("2")
    assert made(pairs, out, 2) == expected
    assert not deaths.exists()


@pytest.mark.slow
def test_pairs_that_always_kill_their_worker_are_given_up(pairs, out, ray_session, monkeypatch):
    monkeypatch.setattr(makers, "Maker", DyingMaker)
    out.with_name("out-deaths").write_text("99")
    with pytest.raises(UserError, match=r"lost for good \(The actor .*fewer --workers") as caught:
        made(pairs, out, 2)
    assert "\n" not in str(caught.value)


class FakeActor:
    """Its work is never done."""

    @property
    def make_all(self):
        return self

    def remote(self, chunk):
        return object()


@pytest.mark.parametrize(
    "error", [RayActorError(error_msg="killed\nby 9"), NodeDiedError("killed\nby 9"), OutOfMemoryError("killed\nby 9")]
)
def test_whatever_ray_lost_a_worker_to_is_the_reason(pairs, monkeypatch, error):
    def get(future):
        raise error

    monkeypatch.setattr(ray, "wait", lambda futures: (futures[:1], futures[1:]))
    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(UserError, match=r"lost for good \(.*killed by 9.*\); mend that or ask for fewer --workers"):
        list(makers._shared([FakeActor()], makers.chunks(pairs)))


def test_a_worker_that_cannot_start_says_why(pairs, out, ray_session, monkeypatch):
    monkeypatch.setattr(makers, "Maker", Stillborn)
    with pytest.raises(UserError, match=r"lost for good \(it could not start: ValueError: no such luck\)") as caught:
        made(pairs, out, 2)
    assert "\n" not in str(caught.value)


def test_errors_arrive_as_they_were_raised(pairs, out, ray_session, monkeypatch):
    monkeypatch.setattr(makers, "Maker", FullDisk)
    with pytest.raises(OSError, match="No space left"):
        made(pairs, out, 2)
