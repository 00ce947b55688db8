import json

from seg_research.cli.main import main


def test_the_page_is_written_beside_the_run(tmp_path, capsys):
    (tmp_path / "summary.json").write_text(
        json.dumps({"title": "T", "rows": [{"name": "expert", "reward": 1.0}]})
    )
    assert main(["report", "--run", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert "expert" in (tmp_path / "report.html").read_text()


def test_a_missing_run_is_one_line(tmp_path, capsys):
    assert (
        main(["report", "--run", str(tmp_path / "nowhere"), "--out", str(tmp_path / "x.html")]) == 2
    )
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "no such run folder" in shown
    assert not (tmp_path / "x.html").exists()
