"""Run this bundle: python run.py --help"""

import sys

if __name__ == "__main__":
    # Running a bundle writes nothing into it.
    sys.dont_write_bytecode = True
    # Nothing here is verified yet: a json.py beside this file must not be taken for Python's.
    if not sys.flags.safe_path:
        del sys.path[0]

    from importlib import import_module
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    root = Path(__file__).resolve().parent
    spec = spec_from_file_location("runtime", root / "runtime" / "__init__.py")
    assert spec is not None and spec.loader is not None, "a file's name ends with .py"
    sys.modules["runtime"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["runtime"])
    raise SystemExit(import_module("runtime.main").main(root))
