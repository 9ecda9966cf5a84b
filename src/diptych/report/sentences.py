"""Every sentence of a comparison, computed from its numbers.

Which template of the catalogue is used depends on the numbers too, so that no claim stands in the
text that they do not carry: a run is called slower, or a loss higher, only where the 95 % interval
of their ratio leaves out 1; otherwise the sentence says that no difference is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from diptych.report.catalogue import phrase
from diptych.report.sentences_cost import epochs, memory, step_times
from diptych.report.sentences_method import method
from diptych.report.statistics import STRIDE
from diptych.report.wording import Sentence, joined, ratio_sentence, say, words

Numbers = Mapping[str, Any]


def sentences(result: Numbers) -> list[Sentence]:
    """All sentences for the content of compare.json, in the order of the page."""
    numbers = result["numbers"]
    a, b = result["runs"]["a"]["label"], result["runs"]["b"]["label"]
    found = [*what(result, a, b)]
    if result["matched"]:
        found += difference(numbers["difference"], a, b)
    found += loss(numbers["loss"], result["matched"], a, b)
    found += step_times(numbers["step_time"], result, a, b)
    found += epochs(numbers["epoch_time"], a, b)
    found += memory(numbers["memory"], a, b)
    if numbers["samples"]:
        found += samples(numbers["samples"], a, b)
    return [*found, *method(result)]


def what(result: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """Whether the runs match, and what is to be known of each before reading on."""
    runs = result["runs"]
    if result["matched"]:
        data = str(runs["a"]["dataset_sha256"])
        yield say("matched", "what", "matched", a=a, b=b, seed=runs["a"]["seed"], data=data)
    elif result["mismatches"]:
        reasons = joined(result["mismatches"])
        yield say("unmatched", "what", "unmatched.reasons", a=a, b=b, reasons=reasons)
    else:
        yield say("unmatched", "what", "unmatched.asked", a=a, b=b)
    for label, run in ((a, runs["a"]), (b, runs["b"])):
        if run["torn_last_line"]:
            yield say(f"torn.{label}", "what", "torn", run=label, last=run["last_step"])
    if result["machine_differences"]:
        keys = ", ".join(result["machine_differences"])
        yield say("machines", "what", "machines", a=a, b=b, keys=keys)


def difference(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """How far losses and gradient norms are apart, step by step."""
    loss, runs = numbers["loss"], {"a": a, "b": b}
    if loss is None:
        yield _apart("difference", "none", n=numbers["steps"], **runs)
        return
    yield _largest("difference", "losses", loss, a, b)
    if 0 < loss["equal"] < loss["compared"]:
        yield _apart("difference.equal", "equal", equal=loss["equal"], n=loss["compared"], **runs)
    if loss["tenth_steps"] > 1 and loss["max_relative"] > 0:
        yield _apart(
            "difference.growth",
            "growth",
            n=loss["tenth_steps"],
            first=loss["median_relative_first_tenth"],
            last=loss["median_relative_last_tenth"],
            **runs,
        )
    if numbers["grad_norm"] is not None:
        yield _largest("difference.grad_norm", "grad_norms", numbers["grad_norm"], a, b)
    if not numbers["every_200"]:
        ends = {"first": numbers["first_step"], "last": numbers["last_step"]}
        yield _apart("difference.every_200", "every_200", stride=STRIDE, **ends, **runs)


def _apart(key: str, template: str, **numbers: Any) -> Sentence:
    return say(key, "difference", f"difference.{template}", **numbers)


def _largest(key: str, what: str, numbers: Numbers, a: str, b: str) -> Sentence:
    named = {"what": phrase(f"term.{what}"), "a": a, "b": b}
    most = {"max": numbers["max_relative"], "step": numbers["max_relative_step"]}
    if numbers["compared"] == 1:
        return _apart(key, "one", **named, **most)
    if numbers["max_relative"] == 0:
        return _apart(key, "same", n=numbers["compared"], **named)
    median = numbers["median_relative"]
    return _apart(key, "largest", n=numbers["compared"], median=median, **named, **most)


def loss(numbers: Numbers, matched: bool, a: str, b: str) -> Iterator[Sentence]:
    """Which steps were recorded, which losses are no numbers, and how low the losses end."""
    in_a, in_b = numbers["a"], numbers["b"]
    if (in_a["first_step"], in_a["last_step"]) != (in_b["first_step"], in_b["last_step"]):
        yield say(
            "loss.lengths",
            "loss",
            "loss.lengths",
            a=a,
            from_a=in_a["first_step"],
            to_a=in_a["last_step"],
            b=b,
            from_b=in_b["first_step"],
            to_b=in_b["last_step"],
            rest=phrase("loss.lengths_rest" if matched else "term.nothing"),
        )
    for label, run in ((a, in_a), (b, in_b)):
        yield from not_finite(label, run)
    yield from _loss_end(numbers["end"], a, b)


def not_finite(label: str, run: Numbers) -> Iterator[Sentence]:
    """Where the loss of one run is no finite number."""
    if run["not_finite"]:
        yield say(
            f"loss.not_finite.{label}",
            "loss",
            "loss.not_finite",
            run=label,
            n=run["not_finite"],
            steps=run["steps"],
            first=run["not_finite_first"],
        )


def _loss_end(end: Numbers | None, a: str, b: str) -> Iterator[Sentence]:
    """How low the losses end, over the same steps of both."""
    if end is None:
        return
    steps = {"first": end["first_step"], "last": end["last_step"]}
    yield say(
        "loss.end",
        "loss",
        "loss.end" if end["whole"] else "loss.end_common",
        a=a,
        mean_a=end["a"]["mean"],
        n_a=end["a"]["steps"],
        b=b,
        mean_b=end["b"]["mean"],
        n_b=end["b"]["steps"],
        **({} if end["whole"] else steps),
    )
    if end["ratio"]:
        name = phrase("term.last_loss") if end["whole"] else words("term.loss_between", **steps)
        yield ratio_sentence("loss.ratio", (name, "higher", "lower"), end["ratio"], a, b)


def samples(numbers: Numbers, a: str, b: str) -> Iterator[Sentence]:
    """How far two sets of images are apart, and what an image cost."""
    pixels, runs = numbers["pixels"], {"a": a, "b": b}
    if pixels is None:
        keys = ", ".join(numbers["card_differences"])
        yield say("samples", "samples", "samples.unlike", keys=keys, **runs)
    elif pixels["values_differing"] == 0:
        values, n = pixels["values"], pixels["images"]
        yield say("samples", "samples", "samples.equal", values=values, n=n, **runs)
    else:
        yield say(
            "samples",
            "samples",
            "samples.differ",
            values=pixels["values"],
            n=pixels["images"],
            differing=pixels["values_differing"],
            share=pixels["values_differing"] / pixels["values"],
            levels=pixels["max_levels"],
            equal=pixels["images_equal"],
            **runs,
        )
    if numbers["a"]["seconds_per_image"] and numbers["b"]["seconds_per_image"]:
        yield say(
            "samples.time",
            "samples",
            "samples.time",
            a=a,
            time_a=numbers["a"]["seconds_per_image"],
            b=b,
            time_b=numbers["b"]["seconds_per_image"],
        )
