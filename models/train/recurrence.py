"""The RWKV-7 recurrence of recurrence.c as a JAX function: compiled at its first use with the system's C compiler.

XLA has no fast form of many small products on a CPU: the chunked form of model.py, which this one is tested against,
takes several times longer. A call needs its arrays whole: in a shard_map, not under a partitioner.
"""
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import ffi

from vocabulary import WORK

SOURCE = Path(__file__).with_name("recurrence.c")
CHUNK = 16          # tokens between the states that the gradient starts from, as in recurrence.c
FLAGS = ("-O3", "-march=native", "-ffast-math", "-funroll-loops", "-shared", "-fPIC")


def compiler():
    """The path of the C compiler, CC or cc; None if there is none."""
    return shutil.which(os.environ.get("CC", "cc"))


@functools.cache
def targets(size):
    """The names under which XLA knows both functions for heads of this size; raises OSError if they do not compile."""
    if size % 16:
        raise ValueError(f"heads of {size}: multiples of 16 are supported")
    command = [compiler(), *FLAGS, f"-DN={size}", str(SOURCE)]
    tag = hashlib.sha256(repr(command).encode() + SOURCE.read_bytes()).hexdigest()[:12]
    WORK.mkdir(exist_ok=True)
    library = WORK / f"wkv7-{size}-{tag}.so"
    if not library.exists():
        temporary = library.with_suffix(".tmp")
        done = subprocess.run([*command, "-o", str(temporary)], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command)}:\n{done.stderr}")
        temporary.replace(library)
    functions = ctypes.CDLL(str(library))
    names = []
    for direction in ("forward", "backward"):
        names.append(f"wkv7_{direction}_{size}")
        ffi.register_ffi_target(names[-1], ffi.pycapsule(functions[f"wkv7_{direction}"]), "cpu", api_version=0)
    return names


def call(name, results, dims, *arrays):
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in results]
    return ffi.ffi_call(name, results, custom_call_api_version=1)(np.array(dims, np.int32), *arrays)


def forward(r, w, k, v, a, b, s):
    batch, time, heads, size = r.shape
    starts = (batch, heads, time // CHUNK, size, size)
    return call(targets(size)[0], (r.shape, s.shape, starts), r.shape[:3], r, w, k, v, a, b, s)


@jax.custom_vjp
def recurrence(r, w, k, v, a, b, s):
    return tuple(forward(r, w, k, v, a, b, s)[:2])


def recurrence_forward(*inputs):
    y, s, starts = forward(*inputs)
    return (y, s), (*inputs[:6], starts)


def recurrence_backward(saved, grads):
    r, starts = saved[0], saved[6]
    batch, _, heads, size = r.shape
    state = (batch, heads, size, size)
    return tuple(call(targets(size)[1], [r.shape] * 6 + [state], r.shape[:3], *saved, *grads))


recurrence.defvjp(recurrence_forward, recurrence_backward)


def wkv7(r, logw, k, v, a, b, s):
    """y and the last state of S <- S diag(w) + (S a) b' + v k', y = S r; inputs [B, T, H, N], T a multiple of 16."""
    return recurrence(r, jnp.exp(logw), k, v, a, b, s)
