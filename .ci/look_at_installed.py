"""Looks at an installed wordlight from a folder elsewhere; arguments: the wheel, the checkout."""

import importlib.metadata
import importlib.resources
import importlib.util
import sys
import zipfile
from pathlib import Path


def main() -> None:
    wheel, checkout = Path(sys.argv[1]), Path(sys.argv[2])
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names}
    metadata_folder = f"wordlight-{importlib.metadata.version('wordlight')}.dist-info"
    assert top == {"wordlight", metadata_folder}, f"top-level entries of the wheel: {top}"
    assert "wordlight/py.typed" in names, "the wheel has no py.typed"
    for room in ("attribution", "backends", "comparisons"):
        modules = {p.relative_to(checkout).as_posix() for p in (checkout / room).rglob("*.py")}
        missing = {f"wordlight/{module}" for module in modules} - set(names)
        assert not missing, f"modules that the wheel lacks: {sorted(missing)}"

    for framework in ("torch", "jax", "diffusers"):
        assert importlib.util.find_spec(framework) is None, f"{framework} is a core dependency"
    import wordlight.attribution
    import wordlight.backends
    import wordlight.comparisons

    for room in (wordlight.attribution, wordlight.backends, wordlight.comparisons):
        place = Path(str(room.__file__)).resolve()
        assert place.is_relative_to(Path(sys.prefix).resolve()), f"{room.__name__} is {place}"

    from wordlight.backends.embedded import EMBEDDED

    sizes = []
    for name, folder in EMBEDDED.items():
        for file in ("README.md", "WORDS", "model_index.json", "training.json"):
            assert (folder / file).is_file(), f"{folder}/{file} is not in the package"
        packed = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 2**20
        assert packed <= 16, f"{name} has {packed:.1f} MiB, over 16"
        weights = list(folder.rglob("*.safetensors"))
        assert len(weights) == 3, f"weights of {name}: {weights}"
        sizes.append(f"{name} {packed:.1f} MiB")
    print(f"the wheel is whole: {len(names)} files, the embedded models: {', '.join(sizes)}")


if __name__ == "__main__":
    main()
