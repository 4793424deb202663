"""What an import brings along, seen from a process of its own."""

import json
import os
import subprocess
import sys

import pytest

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "diffusers", "transformers", "captum")
LOOK = """
import importlib, json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {frameworks!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
if {refuse!r}:
    sys.meta_path.insert(0, Refuse())
importlib.import_module({module!r})
print(json.dumps(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


def imported(module, tmp_path, refuse=False):
    """The top-level packages that are loaded after ``import module``."""
    code = LOOK.format(frameworks=FRAMEWORKS, refuse=refuse, module=module)
    # -P and a folder elsewhere: the checkout's root would make the rooms importable by bare names.
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "module",
    [
        "wordlight",
        "wordlight.attribution",
        "wordlight.attribution.captum.region",
        "wordlight.attribution.captum.from_captum",
        "wordlight.attribution.captum.to_captum",
        "wordlight.backends",
        "wordlight.comparisons",
        "wordlight.comparisons.cli.main",
        "wordlight.backends.scenes.render",
        "wordlight.backends.scenes.segment",
        "wordlight.backends.prompted_data",
        "wordlight.backends.things.render",
    ],
)
def test_no_framework_is_loaded_before_it_is_needed(module, tmp_path):
    loaded = imported(module, tmp_path)
    assert "wordlight" in loaded
    assert not loaded & set(FRAMEWORKS)


@pytest.mark.slow
def test_the_look_sees_one_framework_and_not_the_other(tmp_path):
    loaded = imported("wordlight.backends.torch.backend", tmp_path)
    assert "torch" in loaded
    assert not loaded & {"jax", "jaxlib", "flax"}


@pytest.mark.parametrize("module", ["wordlight", "wordlight.attribution", "wordlight.comparisons"])
def test_it_imports_where_no_framework_is_installed(module, tmp_path):
    assert not imported(module, tmp_path, refuse=True) & set(FRAMEWORKS)


def test_a_users_folder_does_not_hide_the_package(tmp_path):
    for room in ("attribution", "backends", "comparisons"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError('the wrong folder')\n")
    # Without -P, as a user's script in that folder would have it.
    code = "import wordlight.attribution, wordlight.backends, wordlight.comparisons"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


def test_completion_offers_the_public_names(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-c", "import wordlight; print(*dir(wordlight))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert {"compare", "load", "trace", "__version__"} <= set(done.stdout.split())


def test_the_former_address_of_cells_gives_the_same_names():
    from wordlight.comparisons import cells as former
    from wordlight.comparisons.store import cells

    names = {"CellFolder", "DamagedFileError", "Score", "read_scores", "write_scores"}
    assert names <= set(vars(former))
    assert all(getattr(former, name) is getattr(cells, name) for name in names)
