"""`labelrank report` writes the page, or says why not and leaves the old one."""

from click.testing import CliRunner

from labelrank.cli import main
from tests.cli.test_samples import written


def test_the_report_is_written_with_the_order_that_is_asked_for(tmp_path):
    written(tmp_path / "f.parquet", checkpoint={"id": "mae"})
    out = tmp_path / "report.html"
    done = CliRunner().invoke(
        main, ["report", str(tmp_path / "f.parquet"), "--out", str(out), "--order", "alphabetical", "--resamples", "0"]
    )
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    assert f"Wrote {out}." in done.stderr
    assert "Order: alphabetical." in out.read_text(encoding="utf-8")


def test_a_report_into_a_folder_that_is_not_there_says_so(tmp_path):
    written(tmp_path / "f.parquet", checkpoint={"id": "mae"})
    done = CliRunner().invoke(main, ["report", str(tmp_path / "f.parquet"), "--out", str(tmp_path / "no" / "r.html")])
    assert done.exit_code == 1
    assert "does not exist" in done.stderr
