"""Run files that are small and mean much: aliases of aliases, and nesting without end."""

import tracemalloc

import pytest

from wordlight.comparisons.cli.main import main


def test_aliases_of_aliases_take_no_memory(tmp_path, capsys):
    lines = '[&a ["xxxxxxxx","x","x","x","x","x","x","x","x"]'
    for one, another in zip("abcdefg", "bcdefgh", strict=True):
        lines += f", &{another} [" + ",".join([f"*{one}"] * 9) + "]"
    path = tmp_path / "run.yaml"
    path.write_text(f"model: {lines}]\n")
    assert main(["compare", "--config", str(path), "-o", str(tmp_path / "none")]) == 2
    tracemalloc.start()
    try:
        assert main(["compare", "--config", str(path), "-o", str(tmp_path / "out")]) == 2
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert "run.yaml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "text"), [("run.yaml", "n: "), ("run.toml", "n = ")])
def test_what_is_nested_too_deep_is_one_line(name, text, tmp_path, capsys):
    (tmp_path / name).write_text(text + "[" * 3000)
    assert main(["compare", "--config", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.rstrip().splitlines()[-1].endswith(f"{name} is malformed: it is nested too deep")
    assert "Traceback" not in said
