"""run_notebook.py NOTEBOOK [SECONDS]: one notebook's cells as `nbdev_test` runs them, in this process.

Cells flagged with one of settings.ini's `tst_flags` are skipped; a failing cell's traceback goes to stderr.
Shortly before SECONDS are over, where Python then is goes there too, so that a hang can be found."""
import faulthandler
import sys
from pathlib import Path

if __name__ == '__main__': # worker processes import this file again
    if len(sys.argv) > 2: faulthandler.dump_traceback_later(.9*float(sys.argv[2]))

    from nbdev.config import get_config
    from nbdev.test import test_nb

    cfg = get_config()
    ok, _ = test_nb(Path(sys.argv[1]).resolve(), skip_flags=cfg.tst_flags.split(), basepath=cfg.config_path)
    sys.exit(0 if ok else 1)
