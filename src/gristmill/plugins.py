"""The file name is the registered name.

`objectives/causal.py` is the objective "causal": no registry, no import order. A part of the user's own is
named by its import path, `"my_package.my_objective"`. The module says what it offers in `EXPORT`.
"""

import importlib
import importlib.util
import pkgutil
from typing import Any

from gristmill.errors import InputError, did_you_mean

__all__ = ["load", "names"]


def names(package: str) -> list[str]:
    """Returns the names of the parts in a package, `names("objectives")` for instance, sorted.

    A module counts when its file assigns `EXPORT`; it is read, not imported.
    """
    spec = importlib.util.find_spec(f"gristmill.{package}")
    if spec is None or spec.submodule_search_locations is None:
        raise ValueError(f"gristmill.{package} is not a package")
    found = []
    for module in pkgutil.iter_modules(spec.submodule_search_locations):
        inner = module.module_finder.find_spec(module.name, None)
        source = inner.loader.get_source(module.name) if inner and inner.loader else None  # type: ignore[attr-defined]
        if source and "\nEXPORT = " in source:
            found.append(module.name)
    return sorted(found)


def load(package: str, name: str) -> Any:
    """Returns what the part `name` of `package` exports: its class, or its constant.

    Raises:
        InputError: there is no such part; the hint names the nearest one.
    """
    kind = package.rsplit(".", 1)[-1].removesuffix("s")
    kind = kind[:-2] + "y" if kind.endswith("ie") else kind
    if "." in name:
        module_name = name
    elif name in names(package):
        module_name = f"gristmill.{package}.{name}"
    else:
        raise InputError(f'there is no {kind} called "{name}"', did_you_mean(name, names(package)))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the part exists, and something that it imports is missing: that is the author's to see
        raise InputError(
            f'there is no {kind} called "{name}": the module "{error.name}" can not be imported',
            "install the package that has it, or put its folder on PYTHONPATH",
        ) from error
    if not hasattr(module, "EXPORT"):
        raise InputError(f'the module "{module_name}" has no EXPORT', f"end it with EXPORT = <your {kind}>")
    return module.EXPORT
