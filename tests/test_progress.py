import io
import sys

from ssd_keras.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_on_stderr_and_not_in_pipes(monkeypatch, capsys):
    bar = progress_bar(2)
    bar.add(2)
    bar.finish()
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress_bar(4)
    bar.add(2)
    assert f"\r2/4 [{'=' * 15:30}]" in sys.stderr.getvalue()
    bar.add(2)
    assert sys.stderr.getvalue().endswith("images/s\033[K\n")  # the last line is complete
    bar.finish()
    assert sys.stderr.getvalue().count("\n") == 1


def test_a_bar_without_a_total_counts(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress_bar(None, "frame")
    bar.add(3)
    bar.finish()
    assert "\r3 frames, " in sys.stderr.getvalue()
    assert sys.stderr.getvalue().endswith("\n")
