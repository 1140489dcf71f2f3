"""The command ``tmas serve``."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

import uvloop
from rich.console import Console
from rich.text import Text

from tmas.cli.composing import validated
from tmas.cli.exits import INTERRUPTED, STOPPED, WRONG_INPUT, cancel_on_sigterm, fail
from tmas.engines.vllm import ServerFailed
from tmas.llm.endpoint import EndpointDown, UnknownModel
from tmas.serve.server import bind_port, http_server
from tmas.serve.service import open_service
from tmas.serve.settings import ServeSettings


def serve_command(config: dict[str, Any], console: Console) -> None:
    """``tmas serve``: serve requests until SIGTERM or Ctrl-C. Running requests get ``drain_seconds`` to finish.

    SIGTERM is the normal end (exit code 0). Ctrl-C ends with ``INTERRUPTED``.
    """
    settings = validated(ServeSettings.model_validate, config)
    try:
        uvloop.run(_serve(settings, console))
    except asyncio.CancelledError:
        console.print("stopped")
    except KeyboardInterrupt:
        fail("Interrupted.", INTERRUPTED)
    except UnknownModel as error:
        fail(str(error), WRONG_INPUT)
    except (EndpointDown, ServerFailed) as error:
        fail(str(error), STOPPED)


async def _serve(settings: ServeSettings, console: Console) -> None:
    key, folder = settings.serve.read_key(), settings.serve.output_dir
    run, models = validated(settings.run_settings), validated(lambda: settings.served_models)
    with cancel_on_sigterm(), closing(bind_port(settings.serve)) as port:
        if run.serving.name == "vllm":
            console.print(Text(f"starting vLLM with {run.model.name}; its log is in {folder}"), soft_wrap=True)
        async with open_service(settings) as service, http_server(port, service, models, key) as base_url:
            names = ", ".join(models)
            console.print(Text(f"{base_url} serves the models {names}; requests are in {folder}"), soft_wrap=True)
            await asyncio.Event().wait()
