"""Whom the receiver turned away is seen in `dicomrx status`, with the setting that decided."""

from dicomrx.network.sender import echo
from tests.acceptance.pipeline import Pipeline, wait_until


def test_a_peer_that_is_turned_away_is_shown_with_the_setting_to_change(pipeline: Pipeline) -> None:
    with pipeline.running("scp"):
        assert pipeline.status()["refused"] == []
        for _ in range(3):
            assert not echo("127.0.0.1", pipeline.port, calling="CT7", called="OTHER")
        wait_until(lambda: pipeline.status()["refused"], 20)
        assert not echo("127.0.0.1", pipeline.port, calling="CT8", called="OTHER")
    rows = pipeline.status()["refused"]
    assert isinstance(rows, list)
    newest, refused = rows
    assert newest["calling"] == "CT8"
    assert {name: refused[name] for name in ("peer", "calling", "called", "setting", "count")} == {
        "peer": "127.0.0.1",
        "calling": "CT7",
        "called": "OTHER",
        "setting": "AE_TITLE",
        "count": 3,
    }
    shown = [line[:60] for line in pipeline.run("status").stdout.splitlines() if line.startswith("refused ")]
    assert [line[:29] for line in shown] == ["refused 1x by AE_TITLE, last ", "refused 3x by AE_TITLE, last "]
    assert ["CT8" in shown[0], "CT7" in shown[1]] == [True, True]
