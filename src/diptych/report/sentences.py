"""Every sentence of a comparison, computed from its numbers.

Which template is used depends on the numbers too, so that no claim stands in the text that they
do not carry: a run is called slower, or a loss higher, only where the 95 % interval of their
ratio leaves out 1; otherwise the sentence says that no difference is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.report.sentences_cost import epochs, memory, step_times
from diptych.report.sentences_method import method
from diptych.report.statistics import STRIDE
from diptych.report.wording import Sentence, ratio_sentence, say

Numbers = Mapping[str, Any]


def sentences(result: Numbers) -> list[Sentence]:
    """All sentences for the content of compare.json, in the order of the page."""
    numbers = result["numbers"]
    a, b = result["runs"]["a"]["label"], result["runs"]["b"]["label"]
    found = [*_what(result, a, b)]
    if result["matched"]:
        found += _difference(numbers["difference"], a, b)
    found += _loss(numbers["loss"], result["matched"], a, b)
    found += step_times(numbers["step_time"], result["machine_differences"], a, b)
    found += epochs(numbers["epoch_time"], a, b)
    found += memory(numbers["memory"], a, b)
    if numbers["samples"]:
        found += _samples(numbers["samples"], a, b)
    return [*found, *method(result)]


def _what(result: Numbers, a: str, b: str) -> Iterator[Sentence]:
    runs = result["runs"]
    if result["matched"]:
        yield say(
            "matched",
            "what",
            "{a} and {b} were trained with the same settings, seed ({seed}), data (sha256 "
            "{data:.12}) and host noise, so their losses are compared step by step.",
            a=a,
            b=b,
            seed=runs["a"]["seed"],
            data=str(runs["a"]["dataset_sha256"]),
        )
    elif result["mismatches"]:
        yield say(
            "unmatched",
            "what",
            "The losses are not compared step by step, because the runs do not match: {reasons}.",
            reasons="; ".join(result["mismatches"]),
        )
    else:
        yield say("unmatched", "what", "As asked, the losses are not compared step by step.")
    for label, run in ((a, runs["a"]), (b, runs["b"])):
        if run["torn_last_line"]:
            yield say(
                f"torn.{label}",
                "what",
                "The last line of {run}'s metrics.jsonl is torn, as after a crash; it is left out "
                "and the record ends with step {last:count}.",
                run=label,
                last=run["last_step"],
            )
    if result["machine_differences"]:
        yield say(
            "machines",
            "what",
            "The machines were not set up alike ({keys} differ), so times and memory compare "
            "machines as well as panels.",
            keys=", ".join(result["machine_differences"]),
        )


def _difference(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    loss = numbers["loss"]
    if loss is None:
        template = "At none of {n:count} common steps are both losses finite."
        yield say("difference", "difference", template, n=numbers["steps"])
        return
    yield _largest("difference", "losses", loss)
    if 0 < loss["equal"] < loss["compared"]:
        yield say(
            "difference.equal",
            "difference",
            "{equal:count} of {n:count} losses are equal to the last bit.",
            equal=loss["equal"],
            n=loss["compared"],
        )
    if loss["tenth_steps"] > 1 and loss["max_relative"] > 0:
        yield say(
            "difference.growth",
            "difference",
            "The median difference is {first:sig2} over the first {n:count} steps and {last:sig2} "
            "over the last {n:count}.",
            n=loss["tenth_steps"],
            first=loss["median_relative_first_tenth"],
            last=loss["median_relative_last_tenth"],
        )
    if numbers["grad_norm"] is not None:
        yield _largest("difference.grad_norm", "gradient norms", numbers["grad_norm"])
    if not numbers["every_200"]:
        yield say(
            "difference.every_200",
            "difference",
            "The common steps {first:count} to {last:count} hold no multiple of {stride}, so the "
            "figure of every {stride}th step is left out.",
            first=numbers["first_step"],
            last=numbers["last_step"],
            stride=STRIDE,
        )


def _largest(key: str, what: str, numbers: Numbers) -> Sentence:
    if numbers["compared"] == 1:
        template = (
            "At the one common step, {step:count}, the two {what} differ by {max:sig2} relative."
        )
        return say(
            key,
            "difference",
            template,
            what=what,
            max=numbers["max_relative"],
            step=numbers["max_relative_step"],
        )
    if numbers["max_relative"] == 0:
        template = "At all {n:count} common steps the two {what} are equal to the last bit."
        return say(key, "difference", template, n=numbers["compared"], what=what)
    return say(
        key,
        "difference",
        "Over {n:count} common steps the two {what} differ by at most {max:sig2} relative (step "
        "{step:count}); median {median:sig2}.",
        n=numbers["compared"],
        what=what,
        max=numbers["max_relative"],
        step=numbers["max_relative_step"],
        median=numbers["median_relative"],
    )


def _loss(numbers: Numbers, matched: bool, a: str, b: str) -> Iterator[Sentence]:
    in_a, in_b = numbers["a"], numbers["b"]
    if (in_a["first_step"], in_a["last_step"]) != (in_b["first_step"], in_b["last_step"]):
        yield say(
            "loss.lengths",
            "loss",
            "{a} recorded steps {from_a:count} to {to_a:count}, {b} steps {from_b:count} to "
            "{to_b:count}{rest}.",
            a=a,
            from_a=in_a["first_step"],
            to_a=in_a["last_step"],
            b=b,
            from_b=in_b["first_step"],
            to_b=in_b["last_step"],
            rest="; only the steps of both are compared one by one" if matched else "",
        )
    yield from _not_finite(((a, in_a), (b, in_b)))
    yield from _loss_end(numbers, matched, a, b)


def _not_finite(runs: tuple[tuple[str, Numbers], ...]) -> Iterator[Sentence]:
    for label, run in runs:
        if run["not_finite"]:
            yield say(
                f"loss.not_finite.{label}",
                "loss",
                "The loss of {run} is not finite at {n:count} of {steps:count} steps, first at "
                "step {first:count}; those count in no number.",
                run=label,
                n=run["not_finite"],
                steps=run["steps"],
                first=run["not_finite_first"],
            )


def _loss_end(numbers: Numbers, matched: bool, a: str, b: str) -> Iterator[Sentence]:
    in_a, in_b = numbers["a"], numbers["b"]
    if in_a["last_tenth_mean"] is not None and in_b["last_tenth_mean"] is not None:
        yield say(
            "loss.end",
            "loss",
            "Over the last tenth of its steps the mean loss of {a} is {mean_a:sig4} ({n_a:steps})"
            ", that of {b} {mean_b:sig4} ({n_b:steps}).",
            a=a,
            mean_a=in_a["last_tenth_mean"],
            n_a=in_a["last_tenth_steps"],
            b=b,
            mean_b=in_b["last_tenth_mean"],
            n_b=in_b["last_tenth_steps"],
        )
    if not matched and numbers["last_tenth_ratio"]:
        yield ratio_sentence(
            "loss.ratio",
            ("mean loss of the last tenth", "higher", "lower"),
            numbers["last_tenth_ratio"],
            a,
            b,
        )


def _samples(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    pixels = numbers["pixels"]
    if pixels is None:
        template = "The images are not compared pixel by pixel: {keys} differ."
        yield say("samples", "samples", template, keys=", ".join(numbers["card_differences"]))
    elif pixels["values_differing"] == 0:
        template = "All {values:count} uint8 values of the {n:count} images are equal."
        yield say("samples", "samples", template, values=pixels["values"], n=pixels["images"])
    else:
        yield say(
            "samples",
            "samples",
            "Of {values:count} uint8 values in {n:count} images, {differing:count} differ "
            "({share:share}), by at most {levels} of 255; {equal:count} images are equal in "
            "every pixel.",
            values=pixels["values"],
            n=pixels["images"],
            differing=pixels["values_differing"],
            share=pixels["values_differing"] / pixels["values"],
            levels=pixels["max_levels"],
            equal=pixels["images_equal"],
        )
    if numbers["a"]["seconds_per_image"] and numbers["b"]["seconds_per_image"]:
        yield say(
            "samples.time",
            "samples",
            "An image took {a} {time_a:seconds} and {b} {time_b:seconds}: one run of each, so "
            "this shows no difference.",
            a=a,
            time_a=numbers["a"]["seconds_per_image"],
            b=b,
            time_b=numbers["b"]["seconds_per_image"],
        )
