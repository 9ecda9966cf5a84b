"""`diptych protocol`."""

from __future__ import annotations

from typing import Any

import click

from diptych.cli.common import (
    DEVICE,
    FOLDER,
    JSON,
    OVERWRITE,
    OWN_BACKEND,
    QUIET,
    RESUME,
    SEED,
    backend_of,
    say,
    show,
)
from diptych.cli.completion import MODELS
from diptych.cli.evaluate import check_features, open_network
from diptych.cli.sweep import numbers
from diptych.errors import UserError


@click.command(short_help="Run a published evaluation protocol on a checkpoint.")
@click.argument("name")
@click.argument("source", shell_complete=MODELS)
@click.option("--inception", type=FOLDER, help="A file of the Inception network's weights.")
@click.option("--data", type=FOLDER, help="Folder that holds the data sets, searched alone.")
@click.option("--num", help="Other numbers of images, as in 5000,10000; a deviation.")
@click.option("--steps", help="Other numbers of steps, as in 10,20; a deviation.")
@click.option("--etas", help="Other values of eta, as in 0,1; a deviation.")
@click.option("--reference", help="Another reference; a deviation.")
@click.option("--features", default="inception", show_default=True,
              help="inception; mnist or fashion_mnist to rehearse.")  # fmt: skip
@click.option("--batch", type=int, default=64, show_default=True, help="Images scored at once.")
@click.option(
    "--sample-batch", type=int, default=64, show_default=True, help="Images drawn at once."
)
@click.option("--no-cache", is_flag=True, help="Do not keep the reference's features.")
@SEED
@OWN_BACKEND
@DEVICE
@click.option("--out", type=FOLDER, required=True, help="The output folder.")
@RESUME
@OVERWRITE
@QUIET
@JSON
def protocol(name: str, source: str, **options: Any) -> None:
    """Run the protocol NAME on SOURCE: draw its images, score them, state the deviations.

    \b
    ddim-table1   DDIM's table 1 (CIFAR-10): FID of 50,000 images over steps and eta
    cifar10-fid   FID of 5,000 and of 10,000 images against cifar10:train+test

    SOURCE is a run, a checkpoint, zoo:NAME, pretrained:NAME or a folder of diffusers. The published
    numbers are shown beside yours. --resume goes on after an interruption.

    \b
    Examples:
      diptych protocol ddim-table1 pretrained:ema_cifar10 --inception inception.pth --out table1
      diptych protocol cifar10-fid runs/cifar10 --inception inception.pth --out fid
      diptych protocol ddim-table1 zoo:mnist-torch --features mnist --reference mnist:test \\
          --num 200 --steps 5,10 --out rehearsal
    """
    from diptych.evaluation.features.weights_file import cache_folder
    from diptych.files import claim_folder, hold
    from diptych.study import protocols

    features, backend, device = options["features"], options["backend"], options["device"]
    backend = backend_of(backend, source)
    check_features(features)
    if features != "inception" and options["inception"] is not None:
        raise UserError(
            "--inception gives the weights of the Inception network, "
            f"and --features is {features}; leave one of them out"
        )

    def several(key: str, whole: bool = True) -> tuple[Any, ...] | None:
        return None if options[key] is None else tuple(numbers(key, options[key], whole=whole))

    request = protocols.ProtocolRequest(
        name,
        source,
        several("num"),
        several("steps"),
        several("etas", whole=False),
        options["reference"],
        features,
        options["seed"],
        options["sample_batch"],
        options["batch"],
        options["data"],
        None if options["no_cache"] else cache_folder(),
        not options["quiet"],
    )
    request.chosen()  # before the folder is made
    out = options["out"]
    with hold(out):
        claim_folder(out, resume=options["resume"], overwrite=options["overwrite"])
        result = protocols.run(
            request,
            out,
            backend,
            device,
            lambda: open_network(features, backend, device, options["inception"]),
            say,
        )
    show(result, options["as_json"], f"{protocols.render(result)}\n\nprotocol: {out}/protocol.json")
