from threading import Thread

import pytest

from nrh_dist.launch.telling import ASKED, Answers, tell_and_wait


def asking(folder, epoch):
    thread = Thread(target=tell_and_wait, args=(folder, {"epoch": epoch}), daemon=True)
    thread.start()
    while not (folder / ASKED).exists():
        pass
    return thread


def test_a_worker_waits_until_tune_was_told(tmp_path):
    told = []
    answers = Answers(tmp_path, told.append)
    answers.look()
    assert told == [], "nothing is asked"
    worker = asking(tmp_path, 3)
    worker.join(0.3)
    assert worker.is_alive()
    answers.look()
    worker.join(10)
    assert not worker.is_alive() and told == [3]


def test_where_tune_wants_no_more_there_is_no_answer(tmp_path):
    def tell_up_to(epoch):
        raise SystemExit  # as Tune's report does in a trial that is stopped or paused

    answers = Answers(tmp_path, tell_up_to)
    worker = asking(tmp_path, 1)
    with pytest.raises(SystemExit):
        answers.look()
    worker.join(0.3)
    assert worker.is_alive()

    # The next start lets it wait, whoever it is, until its own worker has been answered.
    told = []
    answers = Answers(tmp_path, told.append)
    answers.look()
    worker.join(0.3)
    assert worker.is_alive() and told == []
    own = asking(tmp_path, 2)
    while not told:
        answers.look()
    for one in (own, worker):
        one.join(10)
        assert not one.is_alive()
    assert told == [2]
