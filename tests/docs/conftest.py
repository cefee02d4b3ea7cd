"""Makes the modules beside it known to the tests: pytest's importlib mode leaves the folder out."""

import importlib.util
import sys
from pathlib import Path

for _name in ("docs_pages", "docs_session"):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(
            _name, Path(__file__).with_name(f"{_name}.py")
        )
        assert _spec is not None and _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)
