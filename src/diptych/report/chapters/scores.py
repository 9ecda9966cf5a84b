"""Chapter: scores. Values with intervals, and differences of runs under one protocol.

    group   scores of one metric with one protocol id: only these are compared, and share an axis
    pair    two different runs of a group: a run and its matched partner, or, without a partner
            in the group, the first other run

Nothing is called better unless the 95 % interval of its difference excludes 0. If no two runs
were measured alike, the first differing field of their protocols is named instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from diptych.evaluation.score import Score, better, difference
from diptych.evaluation.score_table import interval, number
from diptych.pages.catalogue import Text, phrase, same
from diptych.pages.document import EMPTY, Block, Looks, Plot, Table, Trace, cells_of, head, plot
from diptych.pages.template import Sentence, say, words
from diptych.pages.traces import unmagnified
from diptych.report.numbers.pair import PairNumbers
from diptych.report.sources.collection import Study
from diptych.report.sources.gather import Record, weights_named
from diptych.runs.checkpoint import weights_of

MOST_FIGURES = 6
MOST_ROWS = 30  # a longer table is folded away
MOST_FIELDS = 3
FIELDS = "scores.value, scores.interval, scores.repeats, scores.protocol_id"
Measured = tuple[Record, Score]
Groups = dict[str, list[Measured]]


def chapter(study: Study) -> Iterator[Block]:
    """All scores with their intervals and protocols, their differences, figures of them."""
    metrics = _metrics(study)
    if not metrics:
        return
    said = [s for metric, groups in metrics.items() for s in _sentences(study, metric, groups)]
    yield from _whose(study)
    yield from said
    if any("low" in s.numbers or s.numbers.get("interval", EMPTY) != EMPTY for s in said):
        yield say("score.seeds")
    less = [metric for metric in metrics if better(metric, True) == "better"]
    if any(metric.startswith("mnist-") for metric in metrics) and less:
        files = [study.of_record(record, "scores.metric") for record in study.found.of("scores")]
        neither = [metric for metric in metrics if better(metric, True) is None]
        but = words("score.reading_neither", neither=neither) if neither else EMPTY
        yield say("score.reading", less=less, but=but).by(*files)
    yield _table(
        study, [pair for groups in metrics.values() for own in groups.values() for pair in own]
    )
    yield from _figures(study, metrics)


def _metrics(study: Study) -> dict[str, Groups]:
    """All scores, by metric and then by protocol."""
    records = study.found.of("scores")
    measured = [(r, Score.from_json(each)) for r in records for each in r.content["scores"]]
    names = dict.fromkeys(score.metric for _, score in measured)
    return {metric: _groups(measured, metric) for metric in names}


def judged(study: Study, pair: PairNumbers) -> Sentence | None:
    """The first score difference of this pair; those with an interval come first."""
    metrics = _metrics(study).items()
    said = [s for metric, groups in metrics for s in _sentences(study, metric, groups)]
    own = [s for s in said if {s.numbers.get("a"), s.numbers.get("b")} == {*pair.names.values()}]
    own.sort(key=lambda s: ("low" not in s.numbers, "value_a" not in s.numbers))
    return own[0] if own else None


def _whose(study: Study) -> Iterator[Sentence]:
    """Name scores of weights that their run no longer holds: they may be of another training."""
    for record in study.found.of("scores"):
        if record.run is not None:
            gone = sorted(weights_named(record) - set(weights_of(study.folders[record.run])))
            named = {"file": record.path.name, "run": study.labels[record.run]}
            for sha in gone[:1]:
                said = say(f"weights.{record.path.stem}", "score.weights", sha=sha, **named)
                yield said.by(study.of_record(record, "scores.subject"))


def _groups(measured: Sequence[Measured], metric: str) -> Groups:
    """A metric's scores by protocol; groups with more runs, intervals, images come first."""
    found: Groups = {}
    for record, score in measured:
        if score.metric == metric:
            found.setdefault(score.protocol_id, []).append((record, score))

    def rank(own: list[Measured]) -> tuple[int, bool, int]:
        runs = {record.run for record, _ in own}
        shown = any(score.interval for _, score in own)
        num = own[0][1].protocol.get("num")
        return -len(runs), not shown, -num if isinstance(num, int) else 0

    return dict(sorted(found.items(), key=lambda item: rank(item[1])))


def _named(metric: str, groups: Groups, identity: str) -> str:
    """A metric's name, with the distinguishing field if there are several protocols."""
    protocols = [own[0][1].protocol for own in groups.values()]
    own = groups[identity][0][1].protocol
    keys = [k for k in own if any(p.get(k) != own[k] for p in protocols)]
    keys.sort(key=lambda k: (k != "num", not k.startswith("sampler.")))
    told = [f"{k.rpartition('.')[2]} {_plain(own[k])}" for k in keys[:MOST_FIELDS]]
    return f"{metric} ({', '.join(told)})" if told else metric


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _sentences(study: Study, metric: str, groups: Groups) -> Iterator[Sentence]:
    """A metric's differences; without any, its values or the reason for not comparing them."""
    pairs = {identity: list(_pairs(study, own)) for identity, own in groups.items()}
    alike = [identity for identity, found in pairs.items() if found]
    judged = [i for i in alike if any(a[1].interval and b[1].interval for a, b in pairs[i])]
    for identity in judged or alike[:1]:
        for a, b in pairs[identity]:
            sources = [study.of_record(record, FIELDS) for record, _ in (a, b)]
            name = _named(metric, groups, identity)
            yield _difference(study, name, identity, a, b).by(*sources)
    if alike:
        return
    firsts = {own[0][0].run: own[0] for own in reversed(groups.values())}
    if len(firsts) > 1:
        a, b = sorted(firsts.values(), key=lambda pair: pair[0].run or 0)[:2]
        sources = [study.of_record(record, FIELDS) for record, _ in (a, b)]
        yield _unlike(study, a, b).by(*sources)
        return
    for identity, own in groups.items():
        said = _alone(study, _named(metric, groups, identity), identity, *own[0])
        yield said.by(study.of_record(own[0][0], FIELDS))


def _pairs(study: Study, own: Sequence[Measured]) -> Iterator[tuple[Measured, Measured]]:
    """Pairs of different runs in a group: matched partners, and others with the first run."""
    by_run = {pair[0].run: pair for pair in reversed(own)}
    runs = sorted(by_run, key=lambda run: run or 0)
    matched = [p.at for p in study.pairs if p.matched and {*p.at} <= {*by_run}]
    partnered = {run for pair in matched for run in pair}
    rest = [(runs[0], run) for run in runs[1:] if run not in partnered]
    for a, b in (*matched, *rest):
        yield by_run[a], by_run[b]


def _alone(study: Study, name: str, identity: str, record: Record, score: Score) -> Sentence:
    ends = score.interval
    shown = words("score.alone_interval", low=ends[0], high=ends[1]) if ends else EMPTY
    told = {"metric": name, "run": study.label_of(record), "value": score.value}
    return say(f"score.{score.metric}.{identity}", "score.alone", interval=shown, **told)


def _unlike(study: Study, one: Measured, other: Measured) -> Sentence:
    a, b = one[1], other[1]
    named = {"metric": a.metric, "a": study.label_of(one[0]), "b": study.label_of(other[0])}
    keys = dict.fromkeys((*a.protocol, *b.protocol))
    unlike = next(k for k in keys if a.protocol.get(k) != b.protocol.get(k))
    key = f"score.{a.metric}.{named['a']}.{named['b']}"
    return say(key, "score.unlike", key=unlike, **named)


def _difference(study: Study, name: str, identity: str, one: Measured, other: Measured) -> Sentence:
    """B minus A in words."""
    a, b = one[1], other[1]
    named = {"metric": name, "a": study.label_of(one[0]), "b": study.label_of(other[0])}
    key = f"score.{a.metric}.{identity}.{named['a']}.{named['b']}"
    values: dict[str, Any] = {"value_a": a.value, "value_b": b.value}
    found = difference(a, b)
    if found["interval"] is None:
        return say(key, "score.short", **named, **values)
    low, high = found["interval"]
    values |= {"sets_a": len(a.repeats), "sets_b": len(b.repeats), "low": low, "high": high}
    values["gap"] = found["difference"]
    if low <= 0 <= high:
        return say(key, "score.none", **named, **values)
    return say(key, "score.shown", word=_judged(a.metric, high < 0), **named, **values)


def _judged(metric: str, lower: bool) -> Text:
    return phrase(f"score.{better(metric, lower) or 'only'}_{'lower' if lower else 'higher'}")


def _table(study: Study, measured: Sequence[Measured]) -> Table:
    keys = ("metric", "of", "value", "interval", "sets", "reference", "protocol")
    rows = []
    for record, score in measured:
        p = score.protocol
        split = f":{p['reference.split']}" if p.get("reference.split") else ""
        against = f"{p['reference.name']}{split}" if p.get("reference.name") else "\N{EN DASH}"
        ends = ranged(interval(score.interval)) if score.interval else None
        sets = f"{max(1, len(score.repeats))} x {p.get('num')}"
        own = [score.metric, study.label_of(record), number(score.value)]
        rows.append([*own, ends, sets, against, score.protocol_id])
    records = {str(record.path): record for record, _ in measured}
    sources, long = study.of_records(records.values(), FIELDS), len(rows) > MOST_ROWS
    return Table(phrase("caption.scores"), head(*keys), cells_of(rows), sources, long)


def ranged(text: str) -> Text:
    """ "3.1 to 3.4" in both languages."""
    return Text(text, text.replace(" to ", " 至 "))


def _figures(study: Study, metrics: dict[str, Groups]) -> Iterator[Plot]:
    """A figure for each group of two or more scores with a known interval, in group order."""
    drawn = [
        (n, metric, identity)
        for metric, groups in metrics.items()
        for n, (identity, own) in enumerate(groups.items())
        if len(own) > 1 and any(score.interval for _, score in own)
    ]
    for n, metric, identity in sorted(drawn, key=lambda each: each[0])[:MOST_FIGURES]:
        name = f"score-{metric}" + (f"-{identity}" if n else "")
        title = _named(metric, metrics[metric], identity)
        yield _figure(study, name, title, metrics[metric][identity])


def _figure(study: Study, name: str, title: str, measured: Sequence[Measured]) -> Plot:
    """Values with intervals, one point per run."""
    traces = []
    for record, score in measured:
        label, ends = study.label_of(record), score.interval
        looks: Looks = {"low": [ends[0]], "high": [ends[1]]} if ends else {}
        named = same(label), study.colour_of(record), [label]
        traces.append(Trace("points", *named, [score.value], **looks))
    sources = study.of_records([record for record, _ in measured], FIELDS)
    axes, shown = (EMPTY, same(measured[0][1].metric)), words("figure.score", metric=title)
    rest: Looks = {"key": "score", "title": shown, "y_range": unmagnified(traces)}
    return plot(name, *axes, traces, "intervals", sources, **rest)
