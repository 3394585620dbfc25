"""The tool `rwkv`: target/release/rwkv, target/debug/rwkv, or what RWKV names."""
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MISSING = "the tool is not built; `cargo build --release --package rwkv-host`, or name it in RWKV"


def find():
    """Its path, or None."""
    places = [ROOT / "target" / kind / "rwkv" for kind in ("release", "debug")]
    return Path(os.environ["RWKV"]) if "RWKV" in os.environ else next((p for p in places if p.exists()), None)


def rwkv(*args):
    """What it prints to its output; an error of the tool ends the program with what it says."""
    done = subprocess.run([find(), *map(str, args)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"rwkv {' '.join(map(str, args))}: {done.stderr}")
    return done.stdout
