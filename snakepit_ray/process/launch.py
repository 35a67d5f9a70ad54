"""How an interpreter's command line and environment are made. Pure: facts in, a value out.

- The environment starts from an allow-list, because what a Ray worker carries (RAY_*, tokens, PYTHONPATH of
  a runtime environment, OMP_NUM_THREADS of its own) is not the interpreter's.
- The user's own values win over every default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOKEN_VARIABLE = "SNAKEPIT_TOKEN"

# What an ordinary program needs to find its files, its language and its libraries, and nothing that is Ray's.
ALLOWED = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TERM", "TMPDIR", "TEMP", "TMP",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH",
        # Where other languages find their libraries, and how many threads Go takes.
        "GEM_HOME", "GEM_PATH", "RUBYLIB", "PERL5LIB", "LUA_PATH", "LUA_CPATH", "NODE_PATH", "GOMAXPROCS",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
        "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
        "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
        "SYSTEMROOT", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME",
    }
)  # fmt: skip
ALLOWED_PREFIXES = ("LC_", "HF_", "GRPC_", "R_LIBS")

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "BLIS_NUM_THREADS",
)


@dataclass(frozen=True)
class Launch:
    """What is executed: `argv` (the ready descriptor's number is appended by the child), `env`, `cwd`."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None = None


def build_launch(
    *,
    argv: Sequence[str],
    base_environ: Mapping[str, str],
    user_env: Mapping[str, str],
    token: str,
    thread_limits: int,
    cwd: str | None = None,
) -> Launch:
    """The command line and environment of one interpreter.

    `token` marks the process and whatever it starts; `thread_limits` is the number that BLAS and OpenMP pools
    get."""
    env = {name: value for name, value in base_environ.items() if allowed(name)}
    env |= {name: str(thread_limits) for name in THREAD_VARIABLES}
    env |= {"PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "ERROR"}
    env |= dict(user_env)
    env[TOKEN_VARIABLE] = token
    return Launch(argv=tuple(argv), env=env, cwd=cwd)


def allowed(name: str) -> bool:
    """Whether an interpreter inherits the variable `name` from the process that starts it."""
    return name in ALLOWED or name.startswith(ALLOWED_PREFIXES)
