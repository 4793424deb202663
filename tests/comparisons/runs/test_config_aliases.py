"""A YAML description with aliases of aliases is refused before it is built."""

import tracemalloc

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
