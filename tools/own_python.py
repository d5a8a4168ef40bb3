"""Runs a script with the packages that it needs: those of this interpreter, else of a private environment, .venv."""
import importlib.util
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def need(packages):
    """packages: module to its name for pip. Unless all are here, starts the script again in .venv, made and filled now."""
    missing = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
    if not missing:
        return
    python = ROOT / ".venv" / "bin" / "python"
    if os.environ.get("NNLITE_VENV"):
        sys.exit(f"nnlite: {missing[0]} cannot be imported from .venv: delete the folder .venv and try again")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ROOT / ".venv")], check=True)
    print(f"{', '.join(packages.values())} into .venv, if not there yet", file=sys.stderr)
    subprocess.run([str(python), "-m", "pip", "install", "-q", *packages.values()], check=True)
    os.environ["NNLITE_VENV"] = "1"
    os.execv(str(python), [str(python)] + sys.argv)
