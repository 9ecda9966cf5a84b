// The figures of the page, drawn from the traces in it by plotly.js, in the page's language and
// theme. A figure that is not drawn shows its PNG: nothing is lost where scripts do not run.
(() => {
  "use strict";
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const say = (text) => text[root.dataset.lang] ?? text.en;
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const faint = (hex) => `${hex}2e`;
  const pale = (hex) => `${hex}73`;

  // The band of a line as closed shapes, one for each stretch between two gaps.
  function outline(trace) {
    const x = [], y = [];
    let from = 0;
    for (let i = 0; i <= trace.x.length; i++) {
      if (i < trace.x.length && trace.low[i] !== null) continue;
      if (i > from) {
        if (x.length) x.push(null), y.push(null);
        const at = trace.x.slice(from, i);
        x.push(...at, ...[...at].reverse());
        y.push(...trace.low.slice(from, i), ...trace.high.slice(from, i).reverse());
      }
      from = i + 1;
    }
    return { x, y };
  }

  function traces(figure) {
    const found = [];
    for (const trace of figure.traces) {
      const own = colour(trace.colour);
      const name = say(trace.label);
      const base = { name, legendgroup: found.length, x: trace.x, y: trace.y, ...(trace.hover && { text: trace.hover }) };
      if (trace.kind === "bars") {
        found.push({ ...base, type: "bar", marker: { color: own }, text: trace.hover, textposition: "none" });
        continue;
      }
      if (trace.low && trace.kind === "line") {
        found.push({ ...base, ...outline(trace), type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself",
          fillcolor: faint(own), showlegend: false, hoverinfo: "skip" });
      }
      const few = trace.x.length <= 60 && trace.x.length !== 2;
      const line = {
        ...base, type: "scatter", mode: trace.kind === "points" || few ? "lines+markers" : "lines",
        line: { color: own, width: 1.8, dash: trace.dash }, marker: { color: own, size: 7, symbol: trace.marker },
      };
      if (trace.under) {
        Object.assign(line.line, { color: pale(own), width: 5.5 });
        Object.assign(line.marker, { color: pale(own), size: 10 });
      }
      if (trace.low && trace.kind === "points") {
        line.error_y = {
          type: "data", symmetric: false, color: own, thickness: 1.4, width: 5,
          array: trace.high.map((v, i) => v - trace.y[i]), arrayminus: trace.low.map((v, i) => trace.y[i] - v),
        };
      }
      found.push(line);
    }
    return found;
  }

  // 1, 2, 5, 10 ... or, over many decades, powers of ten alone; the values themselves if few and apart.
  function ticks(values) {
    const known = [...new Set(values.filter((v) => typeof v === "number" && v > 0))].sort((a, b) => a - b);
    const [low, high] = [known[0], known[known.length - 1]];
    const apart = Math.max(1.02, (high / low) ** (1 / 14));
    if (known.length <= 8 && known.every((v, i) => i === 0 || v / known[i - 1] > apart)) return known;
    const found = [];
    for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++) {
      for (const m of high / low > 2000 ? [1] : [1, 2, 5]) found.push(Number(`${m}e${k}`));
    }
    return found.filter((v) => v >= low / 1.3 && v <= high * 1.3);
  }

  function axis(title, log, values) {
    const marked = log ? ticks(values) : [];
    return {
      ...(marked.length > 1 && { tickmode: "array", tickvals: marked }),
      title: { text: title, standoff: 8 }, type: log ? "log" : undefined, gridcolor: colour("line"),
      linecolor: colour("line"), zeroline: false, automargin: true, separatethousands: true, nticks: log ? 7 : undefined,
      tickformat: log ? "~g" : ",", hoverformat: ",.4~g", tickfont: { color: colour("soft") },
    };
  }

  // About how many rows the names take above the figure.
  function rows(names, width) {
    let count = 1, used = 0;
    for (const name of names) {
      const own = 52 + [...name].reduce((sum, c) => sum + (c.charCodeAt(0) > 0x2e7f ? 13 : 7.4), 0);
      if (used && used + own > width - 80) count += 1, used = 0;
      used += own;
    }
    return count;
  }

  function layout(figure, width) {
    const xs = figure.traces.flatMap((trace) => trace.x);
    const x = axis(say(figure.x), figure.log_x, xs);
    const y = axis(say(figure.y), figure.log_y, figure.traces.flatMap((t) => [...t.y, ...(t.low ?? []), ...(t.high ?? [])]));
    x.showgrid = false;
    if (figure.texts) Object.assign(x, { type: "category", range: [-0.6, new Set(xs).size - 0.4] });
    else if (!figure.log_x && new Set(xs).size <= 20 && xs.every(Number.isInteger)) x.tickmode = "array", x.tickvals = [...new Set(xs)];
    if (figure.x_range) x.range = figure.x_range;
    if (figure.y_range) y.range = figure.y_range;
    else if (figure.from_zero) y.rangemode = "tozero";
    const names = figure.traces.map((trace) => say(trace.label));
    const room = 26 * Math.max(0, rows(names, width) - 2); // names of many lines, which would leave the figure none
    return {
      width, height: Math.round(Math.min(440, Math.max(290, width * 0.52)) + room), autosize: false,
      margin: { l: 58, r: 14, t: 8, b: 44 }, paper_bgcolor: colour("paper"), plot_bgcolor: colour("paper"),
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") },
      hoverlabel: { bgcolor: colour("paper"), bordercolor: colour("line"), font: { color: colour("ink") } },
      xaxis: x, yaxis: y, barmode: figure.stacked ? "stack" : "group", hovermode: figure.texts ? "closest" : "x unified",
      showlegend: names.length > 0, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, bgcolor: "rgba(0,0,0,0)" },
      dragmode: width < 520 ? false : "zoom",
    };
  }

  // On a phone, where nothing hovers, the buttons would lie upon the names for good.
  const config = (width) => ({ displaylogo: false, responsive: false, displayModeBar: width >= 520 ? "hover" : false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });

  function draw() {
    if (typeof Plotly === "undefined") return;
    for (const place of document.querySelectorAll(".plot")) {
      const figure = figures[place.dataset.figure];
      const width = place.parentElement.clientWidth;
      if (!width) continue;
      Plotly.purge(place); // drawn anew: bars that are only updated keep scales of the old ones
      Plotly.newPlot(place, traces(figure), layout(figure, width), config(width));
      place.parentElement.classList.add("drawn");
      place.on("plotly_relayout", (change) => zoomed(place, change));
    }
  }

  // Marks chosen for the whole figure are too few within a part of it.
  function zoomed(place, change) {
    for (const name of ["xaxis", "yaxis"]) {
      if (place.layout[name].tickvals && (`${name}.range[0]` in change || change[`${name}.autorange`])) {
        const mode = `${name}.range[0]` in change ? "auto" : "array";
        if (place.layout[name].tickmode !== mode) Plotly.relayout(place, { [`${name}.tickmode`]: mode });
      }
    }
  }

  function choose(kind, value, keep) {
    root.dataset[kind] = value;
    if (kind === "lang") {
      root.lang = value === "zh" ? "zh-CN" : "en";
      document.title = say(JSON.parse(document.getElementById("title").textContent));
    }
    for (const button of document.querySelectorAll(`button[data-${kind}]`)) {
      button.setAttribute("aria-pressed", String(button.dataset[kind] === value));
    }
    try { if (keep) localStorage.setItem(`diptych-${kind}`, value); } catch { /* a page from disk may not store */ }
  }

  for (const kind of ["lang", "theme"]) {
    let kept = null;
    try { kept = localStorage.getItem(`diptych-${kind}`); } catch { /* as above */ }
    choose(kind, kept || root.dataset[kind], false);
    for (const button of document.querySelectorAll(`button[data-${kind}]`)) {
      button.addEventListener("click", () => { choose(kind, button.dataset[kind], true); draw(); });
    }
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let waiting = 0, last = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { if (innerWidth !== last) { last = innerWidth; draw(); } }, 150);
  });
  // A figure in what was folded has no width until it is opened; a record's number opens its table.
  for (const each of document.querySelectorAll("details")) each.addEventListener("toggle", () => { if (each.querySelector(".plot")) draw(); });
  function reveal() {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const folded = target && (target.closest("details") ?? target.querySelector(":scope > details"));
    if (folded && !folded.open) { folded.open = true; target.scrollIntoView(); }
  }
  addEventListener("hashchange", reveal);
  reveal();
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const each of opened) each.open = true;
  });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
  last = innerWidth;
  draw();
})();
