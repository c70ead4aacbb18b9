import pytest

from nrh_dist.errors import UserError
from nrh_dist.workflows.doctor import examine


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    return tmp_path


def lines(level):
    said = []
    healthy = examine(said.append)
    return healthy, [line for line in said if line.startswith(level)]


def test_a_healthy_machine(home):
    healthy, problems = lines("problem")
    assert healthy and problems == []
    _, fine = lines("ok")
    text = "\n".join(fine)
    for word in ("Python", "torch ", "torchvision", "Ray 2.60", "cache of packed data", "to clear it: rm -r", "W&B"):
        assert word in text


def test_missing_weights_are_notes_that_name_the_file(home, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    healthy, notes = lines("note")
    assert healthy
    assert any("alexnet-owt-7be5be79.pth" in note for note in notes)
    assert any("vgg16-397923af.pth" in note for note in notes)


def test_a_token_that_others_can_read(home):
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    healthy, problems = lines("problem")
    assert not healthy and f"chmod 600 {token}" in problems[0]
    assert all("secret" not in line for line in problems)


@pytest.mark.parametrize(("ports", "level"), [([], "note"), (["0.0.0.0:6379"], "problem")])
def test_a_ray_without_a_token_is_a_problem_where_others_reach_it(home, monkeypatch, ports, level):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr("nrh_dist.workflows.doctor.open_to_the_network", lambda: ports)
    healthy, found = lines(level)
    assert healthy == (level == "note")
    assert any("RAY_AUTH_MODE=disabled" in line and "can run code" in line for line in found)


def test_a_storage_is_tried_from_here(home, s3):
    said = []
    assert examine(said.append, s3.address) and f"ok      this machine reads and writes {s3.address}" in said
    said.clear()
    assert not examine(said.append, "/proc/nrh")
    assert any(line.startswith("problem the storage /proc/nrh: ") for line in said)
    with pytest.raises(UserError, match="--storage"):
        examine(said.append, "ftp://x")


def test_an_address_that_does_not_answer(home, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    healthy, problems = lines("problem")
    assert not healthy and "does not answer" in problems[0]
