"""`diptych align` and `diptych align train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from diptych.cli.common import DEVICE, FOLDER, JSON, OVERWRITE, QUIET, show, split, typed
from diptych.errors import UserError


class Align(click.Group):
    """A command group: `align train` and `align port` are verbs; all else goes to the ladder."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in self.commands:
            args = ["ladder", *args]
        return super().parse_args(ctx, args)


@click.group(
    cls=Align,
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Show that two implementations agree, or where they differ.",
)
def align() -> None:
    """Show that two implementations agree, or name the first place where they do not."""


def _say(quiet: bool) -> Any:
    def say(said: dict[str, Any]) -> None:
        if quiet or "rung" not in said:
            return
        what = f" with {said['mutation']}" if said["mutation"] else ""
        what += ", nudged" if said["nudge"] else ""
        line = f"{said['panel']:9} {said['rung']}{what}: {said['seconds']:.1f} s"
        print(line, file=sys.stderr, flush=True)

    return say


@align.command(name="ladder")
@click.argument("preset", required=False)
@click.option(
    "--backends",
    default="torch,jittor",
    show_default=True,
    help="The two backends; or one and an engine, onnx or openvino.",
)
@click.option("--rungs", help="Only these rungs, separated by commas.")
@click.option("--steps", type=int, default=10, show_default=True, help="Steps in lockstep.")
@click.option("--batch", type=int, help="Images in a batch.  [default: 4; 2 for large networks]")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--mutate", help="Plant these faults (or all), and show that they are caught.")
@click.option("--into", help="The backend that faults are planted into.  [default: the last]")
@click.option("--list", "listing", is_flag=True, help="List rungs and faults, and exit.")
@click.option("--subject", help="Your port: [torch:|jittor:]package.module:function; or weights; "
              "or a trace folder.")  # fmt: skip
@click.option("--reference", help="The reference: torch:PRESET, weights, or a trace.")
@click.option("--names", type=FOLDER, help="JSON or YAML map from reference names to port names.")
@click.option("--time", "takes", type=click.Choice(["auto", "t", "embedding"]), default="auto",
              show_default=True, help="The port's input in addition to the images.")  # fmt: skip
@click.option("--out", type=FOLDER, help="The folder of align.json and the page.")
@click.option("--keep-traces", is_flag=True, help="Keep the traces, in OUT/traces.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:INDEX.")
@click.option("--precision", help="Of the network: fp32, tf32 or bf16.  [default: the config's]")
@click.option("--deterministic/--no-deterministic", default=True, show_default=True,
              help="The same bits in every run on this device.")  # fmt: skip
@OVERWRITE
@QUIET
@JSON
def ladder(preset: str | None, **options: Any) -> None:
    """Climb the ladder of checks with PRESET (a preset or a YAML file).

    Exit code 0: every rung passes. 3: one fails; the last line names it and its first tensor.
    For free training and its equivalence test, see `diptych align train --help`.

    \b
    Examples:
      diptych align tiny --out aligned
      diptych align mnist --rungs operators,layers --json
      diptych align tiny --mutate all
      diptych align mnist --backends torch,openvino --mutate all
      diptych align --subject mypkg.mymodel:build --reference torch:cifar10 --names map.yaml
      diptych align --subject traces/mine --reference traces/theirs
    """
    if options["batch"] is not None and options["batch"] < 1:
        raise UserError(f"--batch {options['batch']}: must be 1 or more")
    if options["listing"]:
        show(_listing(), options["as_json"], _listing_text())
    elif options["subject"] or options["reference"]:
        _port(preset, options)
    elif preset is None:
        raise UserError("which preset? For example: diptych align tiny --out aligned")
    else:
        _ladder(preset, options)


# Options whose name is not that of their value.
SPELLED = {
    "takes": "--time", "overrides": "--set", "keep_traces": "--keep-traces", "as_json": "--json",
    "deterministic": "--deterministic/--no-deterministic",
}  # fmt: skip


def _refuse(names: tuple[str, ...], why: str) -> None:
    """Refuse the first of these options that was given: it would do nothing.

    Raises:
        UserError: names the option.
    """
    for name in names:
        if typed(name):
            raise UserError(f"{SPELLED.get(name, f'--{name}')} {why}; leave it out")


def _ladder(preset: str, options: dict[str, Any]) -> None:
    _refuse(("names", "takes"), "is for --subject, not for a preset")
    from diptych.align.faults import mutations
    from diptych.align.ladder import results
    from diptych.align.ladder.climb import LadderRequest, climb
    from diptych.align.ladder.rungs import choose
    from diptych.backends import ENGINES, check_device
    from diptych.config.load import load_config

    mutate = split(options["mutate"])
    backends = split(options["backends"])
    mutations.choose(mutate, any(name in ENGINES for name in backends))
    device = "cpu" if options["device"] == "auto" else options["device"]
    check_device(device)
    overrides = list(options["overrides"])
    if options["precision"] is not None:
        overrides.append(f"train.precision={options['precision']}")
    config = load_config(preset, overrides)
    request = LadderRequest(
        preset,
        config,
        backends,
        choose(split(options["rungs"])),
        options["steps"],
        options["batch"],
        device,
        mutate,
        options["into"],
        config.train.precision,
        options["deterministic"],
    )
    left = [name for name in request.backends if name not in request.judged]
    if request.engine and not options["quiet"]:
        print(f"{request.engine} is judged, {left[0]} is its measure", file=sys.stderr)
    elif left and not options["quiet"]:
        print(
            f"{request.precision}: {', '.join(left)} computes in float32 alone and is only a "
            f"measure; {', '.join(request.judged)} is judged, by the reference rounded likewise",
            file=sys.stderr,
        )
    if request.config.train.noise == "device" and not options["quiet"]:
        print(
            "train.noise=device: the panels' own draws have no bits to compare; only their "
            "statistics are checked, and every rung takes the host's noise",
            file=sys.stderr,
        )
    out, keep = _claim(options)
    found = climb(request, _say(options["quiet"]), keep)
    result = results.content(found)
    if out is not None:
        from diptych.align.page import write

        write(out, result, found)
    _end(result, results.table(found), options["as_json"])


def _claim(options: dict[str, Any]) -> tuple[Path | None, Path | None]:
    """The prepared output folder and the folder for traces; None for each that is not wanted."""
    from diptych.files import output_folder

    out = options["out"]
    if out is None:
        if options["keep_traces"]:
            raise UserError("--keep-traces: where to? Give a folder with --out")
        return None, None
    # Locked until the command ends.
    click.get_current_context().with_resource(output_folder(out, overwrite=options["overwrite"]))
    return out, out / "traces" if options["keep_traces"] else None


def _port(preset: str | None, options: dict[str, Any]) -> None:
    from diptych.align.ports import climb as port

    if not (options["subject"] and options["reference"]):
        raise UserError("--subject and --reference go together; give both")
    if preset is not None:
        raise UserError(f"'{preset}': name the preset in --reference, such as torch:{preset}")
    _refuse(
        ("mutate", "into", "rungs", "backends", "steps", "device", "precision", "deterministic"),
        "is for the two panels, not for --subject",
    )
    kinds = {port.kind_of(options[name]) for name in ("subject", "reference")}
    if kinds != {"network"}:
        _refuse(
            ("overrides", "batch", "takes", "keep_traces"),
            "is for a network as --subject, not for traces or checkpoints",
        )
    out, keep = _claim(options)
    result, text = port.compare_port(
        options["subject"],
        options["reference"],
        options["names"],
        options["takes"],
        options["batch"] or 2,
        list(options["overrides"]),
        _say(options["quiet"]),
        keep,
    )
    if out is not None:
        from diptych.align.page import write

        write(out, result, None)
    _end(result, text, options["as_json"])


def _end(result: dict[str, Any], text: str, as_json: bool) -> None:
    """Print table or JSON on stdout, then the verdict; exit with code 3 if it failed."""
    show(result, as_json, f"{text}\n\n{result['conclusion']}")
    if as_json:
        print(result["conclusion"], file=sys.stderr)
    if not result["passed"]:
        sys.exit(3)


def _listing() -> dict[str, Any]:
    from diptych.align.faults.mutations import MUTATIONS, OF_ENGINES
    from diptych.align.ladder.rungs import LADDER

    tables = {"faults": MUTATIONS, "faults_of_engines": OF_ENGINES}
    found: dict[str, Any] = {
        "rungs": [{"name": s.name, "gate": s.gate, "claim": s.claim} for s in LADDER.values()]
    }
    for kind, table in tables.items():
        found[kind] = [{"name": m.name, "rung": m.rung, "what": m.what} for m in table.values()]
    return found


def _listing_text() -> str:
    rungs, *tables = _listing().values()
    lines = [f"{s['name']:10} {s['gate']:6} {s['claim']}" for s in rungs]
    for table in tables:
        lines += ["", *(f"{m['name']:20} {m['rung']:10} {m['what']}" for m in table)]
    return "\n".join(lines)


@align.command(name="port")
@click.argument("reference", required=False)
@click.argument("subject", required=False)
@click.option("--inputs", type=FOLDER, help="An .npz of inputs, in the order of the arguments.")
@click.option("--input", "declared", multiple=True, metavar="NAME=SHAPE[:LOW..HIGH][:DTYPE]",
              help="An input to be made, such as x=2,3,32,32:-1..1; once for each.")  # fmt: skip
@click.option("--names", type=FOLDER, help="A corrected names.yaml.")
@click.option("--rungs", help="Only these, separated by commas; weights and layers always.")
@click.option("--steps", type=int, default=5, show_default=True, help="Steps in lockstep.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of weights and inputs.")
@click.option("--init", "start", type=FOLDER, help="Write reference.py and subject.py, and exit.")
@click.option("--model", help="With --init: package.module:Class of the reference.")
@click.option("--to", "framework", default="jittor", show_default=True,
              help="With --init: the port's framework (jittor, torch, numpy).")  # fmt: skip
@click.option("--out", type=FOLDER, help="The folder of port.json, names.yaml and the page.")
@OVERWRITE
@QUIET
@JSON
def port(reference: str | None, subject: str | None, **options: Any) -> None:
    """Prove that SUBJECT is a port of REFERENCE, or name the first layer that is wrong.

    Each is FILE.py[:FUNCTION], package.module:FUNCTION, model.onnx or model.xml (OpenVINO); a
    framework may precede it (openvino:model.onnx). FUNCTION (default: build) makes the model.

    Exit code 0: every rung passes. 3: one fails; the last line names the layer.

    \b
    Examples:
      diptych align port --init myport
      diptych align port reference.py subject.py --out proof
      diptych align port reference.py model.onnx --inputs inputs.npz
    """
    from diptych.align.ports.targets import declared_input

    declared = dict(declared_input(text) for text in options["declared"])
    if options["start"] is not None:
        from diptych.align.ports.starter import start

        if reference or subject:
            raise UserError("--init takes no REFERENCE; name a model with --model")
        _refuse(
            ("names", "inputs", "rungs", "seed", "steps", "out", "overwrite", "as_json"),
            "is for a climb, not for --init",
        )
        for path in start(options["start"], options["model"], options["framework"], declared):
            click.echo(path)
        return
    if options["model"] or typed("framework"):
        raise UserError("--model and --to are for --init")
    if reference is None or subject is None:
        raise UserError("give REFERENCE and SUBJECT; begin with: diptych align port --init myport")
    if options["inputs"] and declared:
        raise UserError("--inputs gives arrays and --input declares them; give one of the two")
    from diptych.align.ports.prove import RUNGS, ports, table
    from diptych.align.ports.sentences import hint_texts, note_texts

    out, _ = _claim({**options, "keep_traces": False})
    (found,) = ports(
        reference,
        [subject],
        options["inputs"] or declared or None,
        names=options["names"],
        seeds=[options["seed"]],
        steps=options["steps"],
        rungs=split(options["rungs"]) or RUNGS,
        say=_say(options["quiet"]),
    )
    if out is not None:
        found.write(out)
    told = [text.en for text in note_texts(found.content)]
    told += [text.en for text in hint_texts(found.fault)] if found.fault else []
    text = "\n".join([table(found.content), *([""] if told else []), *told])
    _end(found.content, text, options["as_json"])


@align.command(name="train")
@click.argument("preset")
@click.option("--seeds", type=int, default=3, show_default=True, help="Runs per backend.")
@click.option("--steps", type=int, required=True, help="Steps of each run.")
@click.option("--margin", type=float, default=0.05, show_default=True,
              help="Largest relative loss difference that counts as equal.")  # fmt: skip
@click.option("--bins", type=int, default=10, show_default=True, help="Bins of timesteps.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option("--out", type=FOLDER, required=True, help="The folder of the runs and the result.")
@DEVICE
@OVERWRITE
@QUIET
@JSON
def train(preset: str, **options: Any) -> None:
    """Train both backends freely from several seeds, and test their losses for equivalence.

    Exit code 0: equivalent within the margin. 3: equivalence not shown.

    \b
    Example:
      diptych align train tiny --seeds 3 --steps 600 --out free
    """
    from diptych.align.training import free
    from diptych.config.load import load_config

    config = load_config(preset, list(options["overrides"]))
    request = free.FreeTrainingRequest(
        preset,
        config,
        options["seeds"],
        options["steps"],
        options["margin"],
        options["bins"],
        options["device"],
    )
    result = free.compare_training(
        request, options["out"], overwrite=options["overwrite"], quiet=options["quiet"]
    )
    _end(result, free.table(result), options["as_json"])
