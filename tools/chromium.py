"""Find Chromium or Chrome, which checks the built book and prints its PDFs, and install it.

    python tools/chromium.py              print the browser's path
    python tools/chromium.py --install    also install what is missing: it, and an HTML checker

The HTML checker is the W3C's, from the npm package `vnu-jar`; it needs Java.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VNU_VERSION = "26.9.27"
VNU_FOLDER = ROOT / ".venv" / "vnu"
VNU = VNU_FOLDER / "node_modules" / "vnu-jar" / "build" / "dist" / "vnu.jar"
COMMANDS = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
MACOS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
# Command -> the Debian package that brings it.
PACKAGES = {"java": "default-jre-headless", "npm": "npm"}
HINT = "install Chromium or Chrome, or set CHROME_PATH to one"


def find() -> str | None:
    """The path of Chromium or Chrome: CHROME_PATH, or the first that is installed."""
    if given := os.environ.get("CHROME_PATH"):
        return given if Path(given).is_file() else None
    found = [path for command in COMMANDS if (path := shutil.which(command))]
    found += [path for path in MACOS if Path(path).is_file()]
    return next(iter(found), None)


def install() -> None:
    """Install what is missing, with apt-get where there is one."""
    missing = [package for command, package in PACKAGES.items() if not shutil.which(command)]
    if find() is None:
        missing.append("chromium")
    if missing:
        if not shutil.which("apt-get"):
            raise SystemExit(f"No apt-get here. Install {', '.join(missing)} (or {HINT}).")
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True)
        options = ["-y", "-qq", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(
            [*sudo, "apt-get", "install", *options, *missing],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
    if not VNU.is_file():
        command = ["npm", "install", "--silent", "--no-save", "--ignore-scripts"]
        command += ["--prefix", str(VNU_FOLDER), f"vnu-jar@{VNU_VERSION}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Find or install Chromium.")
    parser.add_argument("--install", action="store_true", help="install what is missing")
    if parser.parse_args(arguments).install:
        try:
            install()
        except subprocess.CalledProcessError as error:
            print(f"Could not install what the browser checks need: {' '.join(error.cmd)} failed.")
            return 1
    path = find()
    print(path or f"No browser found: {HINT}.")
    return int(path is None)


if __name__ == "__main__":
    sys.exit(main())
