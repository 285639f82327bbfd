"""Metadata that depend on where the book is published, which no file says: DUALITY_REPOSITORY does.

Everything else stands in pyproject.toml. The description of wheel and sdist is the README, whose
pictures and links lead into the repository; where none is named, pictures and links are left out.
"""

import os
import re
from pathlib import Path

from setuptools import setup

REPOSITORY = os.environ.get("DUALITY_REPOSITORY", "").strip().removesuffix("/").removesuffix(".git")


def lead_into_the_repository(link: re.Match[str]) -> str:
    mark, text, target = link.groups()
    if "://" in target:
        return link[0]
    if not REPOSITORY:
        return "" if mark else text
    return f"{mark}[{text}]({REPOSITORY}/{'raw' if mark else 'blob'}/HEAD/{target})"


readme = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
setup(
    long_description=re.sub(r"(!?)\[([^\]]*)\]\(([^)]+)\)", lead_into_the_repository, readme),
    long_description_content_type="text/markdown",
    project_urls={"Review": "https://arxiv.org/abs/2410.16411"}
    | ({"Repository": REPOSITORY} if REPOSITORY else {}),
)
