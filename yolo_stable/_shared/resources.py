"""Resource folders: the presets (``hyp/``) and data sets (``datasets/``), in a checkout and when installed."""

from __future__ import annotations

from pathlib import Path


def resource_dir(name: str) -> Path:
    """Return the folder ``hyp`` or ``datasets`` of this installation.

    A wheel has both inside the package; a checkout or an editable install has them beside it.

    Raises:
        FileNotFoundError: The installation is damaged.

    Examples:
        >>> (resource_dir("hyp") / "stable.yaml").is_file()
        True
    """
    package = Path(__file__).resolve().parents[1]
    places = [package / name, package.parent / name]
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"This installation of yolo-stable has no {name}/ folder (looked at {looked}). Reinstall it."
    )
