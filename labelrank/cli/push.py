"""`labelrank push`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labelrank.cli.options import given
from labelrank.cli.progress import say
from labelrank.cli.tables import printable
from labelrank.errors import HubError, UnknownRepo
from labelrank.words import size_text

if TYPE_CHECKING:
    from labelrank.steps.publish.plan import Plan


@click.command()
@click.argument("label_map", type=click.Path(path_type=Path))
@click.argument("repo", metavar="OWNER/NAME")
@click.option(
    "--type", "kind", type=click.Choice(["model", "dataset"]), default="model", show_default=True, help="What REPO is."
)
@click.option("--create", "may_create", is_flag=True, help="Make the repository if it does not exist.")
@click.option("--private/--public", default=True, help="Who sees a repository that --create makes.  [private]")
@click.option("--pr", "pull_request", is_flag=True, help="Open a pull request instead of writing to the main branch.")
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a model that was trained in this order, to publish too: `model` of `finetune --files`.",
)
@click.option("--yes", is_flag=True, help="Write without asking.")
def push(
    label_map: Path,
    repo: str,
    kind: str,
    may_create: bool,
    private: bool,
    pull_request: bool,
    model: Path | None,
    yes: bool,
) -> None:
    """Publish a label map in a repository of the Hugging Face Hub, after showing what changes there.

    Writes label_map.json, a section of the card with a chart, and, for a model, id2label of its config.json. The access
    token is that of `hf auth login` or HF_TOKEN.
    """
    from labelrank.label_map import read_label_map
    from labelrank.settings import Settings
    from labelrank.steps.publish.plan import plan
    from labelrank.views.card import card_chart, card_section

    if given("private") and not may_create:
        raise click.UsageError("--private and --public go with --create.")
    if pull_request and may_create:
        raise click.UsageError("--pr goes with a repository that exists, --create with one that does not.")
    if model and kind != "model":
        raise click.UsageError("--model goes with --type model.")
    ranked, settings = read_label_map(label_map), Settings.from_env()
    try:
        planned = plan(
            ranked,
            repo,
            kind,
            section=card_section(ranked, kind, trained=model is not None),
            chart=card_chart(ranked),
            model=model,
            may_create=may_create,
            settings=settings,
        )
    except UnknownRepo as error:
        raise UnknownRepo(f"{error} To make it, add --create.") from None
    if not planned.changes:
        say(f"{planned.target.repo_id} has all of this already; nothing was written.")
        return
    _show(planned)
    pull_request = pull_request or _proposes(planned)
    if not _confirmed(planned, yes=yes, private=private, pull_request=pull_request):
        say("Nothing was written.")
        sys.exit(1)
    address = planned.carry_out(private=private, pull_request=pull_request, settings=settings)
    say(f"{'Opened a pull request' if pull_request else 'Wrote it'}: {address}")


def _show(planned: Plan) -> None:
    """Print the difference of each text, and a line on every file."""
    for change in planned.changes:
        if change.is_text:
            for line in change.diff():
                click.echo("\t".join(map(printable, line.split("\t"))))
    for change in planned.changes:
        before = change.old_size_bytes
        was = "new" if before is None else f"now {size_text(before)}"
        say(f"{printable(change.path)}: {size_text(change.size_bytes)} ({was})")


def _proposes(planned: Plan) -> bool:
    """Return whether to open a pull request where the account may not write; ask where there is somebody to ask.

    Raises:
        HubError: Nobody can be asked.
    """
    if planned.may_write:
        return False
    target, account = planned.target, planned.account.name
    if planned.repo is None:
        raise HubError(
            f"{account} may not make repositories of {target.repo_id.partition('/')[0]}. Choose {account} or one of "
            "its organizations as the owner."
        )
    text = f"{account} may not write to {target.repo_id}."
    if not sys.stdin.isatty():
        raise HubError(f"{text} Add --pr to open a pull request.")
    return click.confirm(f"{text} Open a pull request?", err=True)


def _confirmed(planned: Plan, *, yes: bool, private: bool, pull_request: bool) -> bool:
    """Return whether to write what was shown.

    Raises:
        HubError: There is nobody to ask.
    """
    target = planned.target
    if planned.repo is None:
        question = f"Make the {'private' if private else 'public'} {target.kind} {target.repo_id} with this?"
    elif pull_request:
        question = f"Open a pull request with this in {target.name}?"
    else:
        question = f"Write this to {target.name}?"
    if yes:
        return True
    if not sys.stdin.isatty():
        raise HubError("Nothing was written, as there is no terminal to ask. Add --yes to write what is shown above.")
    return click.confirm(question, err=True)
