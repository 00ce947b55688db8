"""The search server on a Ray cluster: replicas of one app behind Ray Serve's proxy.

    serve run retrieval_server.ray_serve:app text=/data/corpus.jsonl text_index=/data/index
    replicas=4

Every option of `seg-research serve` is a `name=value`; address and port are those of Ray Serve.
Files must lie at the same place on all nodes, and the token's variable must be set on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from retrieval_server.options import ServerSettings, add_arguments, settings_from
from retrieval_server.progress import no_progress
from seg_common.arguments import Parser, at_least, number

_MAX_ONGOING = 256
"""Requests that a replica is handed at once; its own queue batches them."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """How many servers there are and what each reserves."""

    count: int = 2
    num_cpus: float = 1.0


def deploy(settings: ServerSettings, replicas: Replicas) -> Application:
    """Describe the deployment; `ray.serve.run` starts it."""

    def make_app() -> FastAPI:  # runs in each replica
        from retrieval_server.factory import build_app

        return build_app(settings, no_progress).app

    ray_serve: Any = serve  # its decorators are typed for decorating alone
    deployment = ray_serve.deployment(
        ray_serve.ingress(make_app)(),
        name="search",
        num_replicas=replicas.count,
        ray_actor_options={"num_cpus": replicas.num_cpus},
        max_ongoing_requests=_MAX_ONGOING,
    )
    return deployment.bind()


def app(arguments: dict[str, str]) -> Application:
    """Build the application from the `name=value` arguments of `serve run`.

    Raises:
        UsageError: an argument is unknown or its value is out of range.
    """
    parser = Parser(prog="serve run retrieval_server.ray_serve:app", add_help=False)
    parser.advice = "options are those of `seg-research serve`, as name=value"
    add_arguments(parser)
    parser.add_argument("--replicas", type=at_least(1), default=Replicas().count)
    parser.add_argument("--num-cpus", type=number(), default=Replicas().num_cpus)
    options = parser.parse_args(_as_options(arguments))
    return deploy(settings_from(options), Replicas(options.replicas, options.num_cpus))


def _as_options(arguments: dict[str, str]) -> list[str]:
    """Write `name=true` as a switch and anything else as `--name=value`."""
    named = ((f"--{name.replace('_', '-')}", str(value)) for name, value in arguments.items())
    return [name if value.lower() == "true" else f"{name}={value}" for name, value in named]
