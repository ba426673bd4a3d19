"""`gristmill schema`: the JSON schema of a recipe."""

import click

from gristmill.cli._common import print_json

__all__ = ["command"]


@click.command()
@click.argument("kind", type=click.Choice(["run", "adapt"]), default="run")
def command(kind: str) -> None:
    """Print the JSON schema of a recipe, with which editors complete and check its keys: of `gristmill run`, or of `gristmill adapt`.

    \b
      gristmill schema > gristmill.schema.json
      gristmill schema adapt > adapt.schema.json
      gristmill schema | jq '.properties.pretrain.properties | keys'

    In editors that use Taplo, a recipe's first line may then say: #:schema ./gristmill.schema.json

    Next: gristmill explain RECIPE
    """
    from gristmill.config import json_schema

    if kind == "adapt":
        from gristmill.adapt.adapting import AdaptRecipe

        print_json(json_schema(AdaptRecipe, "gristmill adaptation"))
        return
    from gristmill.pipeline import Recipe

    print_json(json_schema(Recipe, "gristmill recipe"))
