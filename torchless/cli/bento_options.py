"""The options of `torchless up` that follow from the table of services."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from torchless.cli.bentos import BENTOS, ENVIRONMENTS, pythons_in


def with_bento_options(project: Path) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command `--<service>-port` for each service and `--<environment>-python` for each environment.

    The command must take `ports` and `pythons`, both by name, which stand for these options.

    Args:
        project: The checkout that holds the environments.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        options = {"ports": _port_options(), "pythons": _python_options(project)}

        @wraps(command)
        def run(**values: Any) -> None:
            for group, parameters in options.items():
                values[group] = {name: values.pop(parameter.name) for name, parameter in parameters.items()}
            command(**values)

        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += options[parameter.name].values() if parameter.name in options else [parameter]
        # Typer reads both.
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _port_options() -> dict[str, inspect.Parameter]:
    return {
        bento.name: _option(
            f"{bento.name}_port",
            Annotated[int, typer.Option(min=1, max=65535, help=f"Port of the {bento.label} service's gRPC API.")],
            bento.port,
        )
        for bento in sorted(BENTOS, key=lambda bento: bento.port)
    }


def _python_options(project: Path) -> dict[str, inspect.Parameter]:
    pythons, parameters = pythons_in(project / ".venv"), {}
    for environment in ENVIRONMENTS:
        python = pythons[environment]
        names = [bento.label for bento in BENTOS if bento.environment == environment]
        text = f"Python that runs the {' and '.join(names)} service{'s' * (len(names) > 1)}."
        annotation = Annotated[Path, typer.Option(show_default=str(python.relative_to(project)), help=text)]
        parameters[environment] = _option(f"{environment}_python", annotation, python)
    return parameters


def _option(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
