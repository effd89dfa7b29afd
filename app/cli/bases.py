"""`loraworks bases …`"""

from typing import Annotated

import typer

from app.cli.local_subprocess import run_lora_core
from app.cli.options import AsJson
from app.cli.output import delayed_spinner, print_fields, print_json, print_line, print_table
from lora_core.results import BaseModelReport

app = typer.Typer(help="Base models.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Sample, directory, or name on the Hugging Face Hub.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="Commit, tag or branch of a hub model.")
]


@app.command("check")
def check_base_model(name: Name, revision: Revision = None, as_json: AsJson = False) -> None:
    """Try a base model on this machine: what is adapted, whether it computes right, speed, memory.

    Needs no service. A model of the hub is downloaded. Exits with 1 if it cannot be trained.
    """
    options = () if revision is None else ("--revision", revision)
    with delayed_spinner("loading and trying the base model"):
        output = run_lora_core("check-base", name, *options)
    found = BaseModelReport.model_validate_json(output)
    print_json(found) if as_json else _print_check(found)


def _print_check(found: BaseModelReport) -> None:
    repeated = f", run {found.passes} times" if found.passes > found.blocks else ""
    print_fields(
        [
            ("base", found.base),
            ("commit", found.commit),
            ("encoder", f"{found.model_type}, {found.road}"),
            ("blocks", f"{found.blocks} of width {found.width}{repeated}"),
            ("parameters", f"{found.parameters:,}"),
            ("maximum length", f"{found.max_tokens:,} tokens"),
        ]
    )
    print_table(
        ("role", "layers of a block", ">parameters of LoRA"),
        [
            (", ".join(each.roles), ", ".join(each.layers), f"{each.parameters:,}")
            for each in found.adapted
        ],
        empty="no roles",
    )
    print_fields(
        [
            ("head", ", ".join(found.head)),
            ("trained by LoRA", f"{found.trained_parameters:,} parameters, with the head"),
            ("batch against alone", f"logits differ by {found.logits_difference:.1e}"),
            ("merged against unmerged", f"logits differ by {found.merge_difference:.1e}"),
            ("classifies", f"{found.tokens_per_second:,.0f} tokens/s on the CPU in fp32"),
            (
                "trains with LoRA",
                f"{found.trained_tokens_per_second:,.0f} tokens/s on {found.device} in "
                f"{found.precision}",
            ),
            ("memory for LoRA", f"{found.lora_memory_mb:,.0f} MB without activations"),
            ("memory for full", f"{found.full_memory_mb:,.0f} MB without activations"),
            ("peak of this check", f"{found.peak_memory_mb:,.0f} MB"),
        ]
    )
    print_line("This base can be trained and served.", style="green")
