"""What stands in fences on the pages of docs/, to be run or compared."""

from pathlib import Path


def fenced(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    parts = page.read_text().split(f"```{language}\n")[1:]
    return [part.split("```")[0] for part in parts]
