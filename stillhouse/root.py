"""Where the daemons are imported from: the wheel's private import root, or the checkout."""

from pathlib import Path


def import_root() -> Path:
    """The folder that holds `gateway`, `embedd`, `services` … of this very installation.

    A wheel keeps them in `stillhouse/_root`, because site-packages is no place for such general names; in a
    checkout (and an editable install of it) they lie beside this package.
    """
    here = Path(__file__).resolve().parent
    private = here / "_root"
    return private if private.is_dir() else here.parent
