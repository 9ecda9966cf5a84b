// The page of the studio: asks its own server, shows what it answers. All words come from the page.
(() => {
  "use strict";
  const root = document.documentElement;
  const WORDS = JSON.parse(document.getElementById("words").textContent);
  const $ = (id) => document.getElementById(id);
  const NAMES = { torch: "PyTorch", jittor: "Jittor" };
  const ENDED = ["done", "failed", "stopped"];
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const pause = (ms) => new Promise((go) => setTimeout(go, ms));
  const sig = (x, n = 3) => (x === null || x === undefined ? "" : Number(x).toPrecision(n).replace(/(\.\d*?)0+(e|$)/, "$1$2").replace(/\.(e|$)/, "$1"));
  const count = (x) => Number(x).toLocaleString("en-US");

  // ---- words and elements
  const fill = (text, numbers) => text.replace(/\{(\w+)\}/g, (_, key) => numbers[key]);
  const say = (key, numbers = {}) => fill(WORDS[key][root.dataset.lang] ?? WORDS[key].en, numbers);
  function el(tag, facts = {}, ...inside) {
    const found = document.createElement(tag);
    for (const [key, value] of Object.entries(facts)) {
      if (key.startsWith("on")) found.addEventListener(key.slice(2), value);
      else if (key in found && key !== "list") found[key] = value;
      else found.setAttribute(key, value);
    }
    found.append(...inside.flat(9).filter((each) => each !== null && each !== undefined));
    return found;
  }
  // Words in both languages: the style sheet shows one, so that nothing is drawn anew.
  function t(key, numbers = {}) {
    const { en, zh } = WORDS[key];
    if (en === zh) return [fill(en, numbers)];
    return [el("span", { lang: "en" }, fill(en, numbers)), el("span", { lang: "zh-CN" }, fill(zh, numbers))];
  }

  // ---- the server
  class Refused extends Error {}
  async function api(path, body) {
    let answer;
    try {
      answer = await fetch(path, body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    } catch {
      throw new Refused(say("lost"));
    }
    const text = await answer.text();
    let found;
    try { found = JSON.parse(text); } catch { throw new Refused(text.slice(0, 300)); }
    if (found?.error && !answer.ok) throw new Refused(found.error);
    return found;
  }
  function fault(text) {
    $("fault").replaceChildren(...(text ? [el("p", {}, text)] : []));
    if (text) $("fault").scrollIntoView({ block: "nearest" });
  }
  async function tried(work) {
    try { return await work(); } catch (error) {
      if (!(error instanceof Refused)) throw error;
      fault(error.message);
      return null;
    }
  }

  let current = null; // the number of the job that is shown
  const known = new Map();

  // ---- language, theme, rooms
  let drawCurve = () => {};
  function choose(kind, value, keep) {
    root.dataset[kind] = value;
    if (kind === "lang") root.lang = value === "zh" ? "zh-CN" : "en";
    for (const button of document.querySelectorAll(`button[data-${kind}]`)) button.setAttribute("aria-pressed", String(button.dataset[kind] === value));
    if (keep) localStorage.setItem(`diptych-${kind}`, value);
    if (kind === "lang") options();
    drawCurve();
  }
  const ROOMS = ["sample", "between", "encode", "runs", "ladder"];
  let room = "";
  function enter() {
    room = ROOMS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "sample";
    const work = !["runs", "ladder"].includes(room);
    $("room-work").hidden = !work;
    $("room-runs").hidden = room !== "runs";
    $("room-ladder").hidden = room !== "ladder";
    for (const link of document.querySelectorAll(".tabs a")) link.toggleAttribute("aria-current", link.hash === `#${room}`);
    for (const each of document.querySelectorAll("[data-for]")) each.hidden = !each.dataset.for.split(" ").includes(room);
    steered();
    fault("");
    options();
    if (room === "runs") look();
    if (!work) return;
    const last = [...known.values()].filter((job) => job.kind === room).pop();
    current = last?.id ?? null;
    past();
    if (last) shown(last);
    else {
      $("bars").replaceChildren();
      $("stop").disabled = true;
      delete $("result").dataset.job;
      $("result").replaceChildren(el("p", { className: "empty" }, t(room === "encode" ? "begin_encode" : "begin")));
    }
  }

  // ---- the model
  let model = null;
  async function models() {
    const found = await api("/api/models");
    $("source").replaceChildren(...found.map((each) => el("option", { value: each.name }, each.title)));
    await opened();
  }
  function steered() { // by a class, or by the guide of the sampler that the model recommends
    const own = room === "sample" && !$("solver").value && !$("eta").value;
    const guided = model?.guided && own;
    $("steered").hidden = room === "encode" || !(model?.classes || guided);
    $("classed").hidden = !model?.classes;
  }
  async function opened() {
    const asked = $("source").value;
    const found = await tried(() => api(`/api/model?source=${encodeURIComponent(asked)}`));
    if (asked !== $("source").value) return; // another was chosen meanwhile
    model = found;
    steered();
    $("about").replaceChildren();
    if (model) {
      const [channels, height, width] = model.shape;
      $("about").append(...t("about", { size: `${height}x${width}`, channels, classes: model.classes, timesteps: model.timesteps, sha: model.weights_sha256.slice(0, 12) }));
    }
    options();
    quality();
  }
  function options() {
    const own = model?.sampler && Object.entries(model.sampler).map(([key, value]) => (key === "solver" ? value : `${key} ${value}`)).join(", ");
    $("own").textContent = room === "between" && model?.sampler?.solver !== "ddim" ? say("own_ddim") : own ? say("own", { name: own }) : say("own_none");
  }

  // ---- steps against quality
  function chosen(row, cell) {
    const value = (id) => ($(id).value === "" ? null : Number($(id).value));
    let [solver, steps, order, eta] = [$("solver").value, value("steps"), value("order"), value("eta")];
    if (!solver) {
      const own = eta !== null && model.sampler?.solver !== "ddim" ? { solver: "ddim", steps: 50 } : model.sampler ?? { solver: "dpmpp-sde", steps: 15 };
      [solver, steps, order, eta] = [own.solver, steps ?? own.steps, order ?? own.order ?? null, eta ?? own.eta ?? null];
    }
    if (steps === null) steps = solver === "dpmpp-sde" ? 15 : solver.startsWith("ddpm") ? model.timesteps : 50;
    const usual = solver === "ipndm" ? 4 : 2;
    return !$("spacing").value && row.settings.solver === solver && cell.steps === steps && (row.settings.order ?? usual) === (order ?? usual) && (row.settings.eta ?? 0) === (eta ?? 0);
  }
  function quality() {
    steered();
    $("quality").replaceChildren();
    if (!model?.quality.length) return;
    $("quality").append(el("h2", {}, t("quality")));
    model.quality.forEach((table, place) => {
      const low = !/precision|recall|density|coverage|-is$|^is$/.test(table.metric);
      const heads = [...new Set(table.rows.flatMap((row) => row.cells.map((cell) => cell.calls)))].sort((a, b) => a - b);
      const means = table.rows.flatMap((row) => row.cells.map((cell) => cell.mean));
      const best = low ? Math.min(...means) : Math.max(...means);
      const body = table.rows.map((row) => el("tr", {}, el("th", { scope: "row" }, row.name), heads.map((head) => {
        const cell = row.cells.find((each) => each.calls === head);
        if (!cell) return el("td", {});
        const press = () => {
          $("solver").value = row.settings.solver;
          $("steps").value = cell.steps;
          $("order").value = row.settings.order ?? "";
          $("eta").value = row.settings.eta ?? "";
          $("spacing").value = row.settings.spacing ?? "";
          quality();
        };
        const range = cell.low === null || cell.low === undefined ? null : el("small", {}, `${sig(cell.low)} – ${sig(cell.high)}`);
        const button = el("button", { type: "button", onclick: press }, sig(cell.mean), range);
        return el("td", { className: `${chosen(row, cell) ? "chosen" : ""} ${cell.mean === best ? "best" : ""}` }, button);
      })));
      const head = el("tr", {}, el("th", {}), heads.map((each) => el("th", {}, t("quality_calls", { n: each }))));
      const note = el("p", { className: "soft" }, t(low ? "quality_note" : "quality_high", { metric: table.metric, title: table.title }));
      const earlier = table.earlier ? el("p", { className: "soft" }, t("quality_earlier")) : null;
      const whole = [note, earlier, el("div", { className: "scroll", tabIndex: 0 }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)))];
      $("quality").append(el("details", { className: "quality", open: place === 0 }, el("summary", {}, table.metric), whole));
    });
  }

  // ---- a request
  let picture = null;
  function number(id) {
    const field = $(id);
    if (field.validity.badInput) throw new Refused(say("no_number", { name: id }));
    if (field.value === "") return undefined;
    const value = Number(field.value);
    if (Number.isInteger(value) && !Number.isSafeInteger(value)) throw new Refused(`${id}: 0 .. ${Number.MAX_SAFE_INTEGER}`);
    return value;
  }
  function request() {
    const settings = { steps: number("steps"), spacing: $("spacing").value || undefined };
    if (room !== "encode") {
      Object.assign(settings, { solver: $("solver").value || undefined, eta: number("eta"), order: number("order") });
      if (!$("steered").hidden) settings.guidance = number("guidance");
      if (model?.classes) settings.classes = $("classes").value || undefined;
    }
    const common = { kind: room, source: $("source").value, panels: $("which").value.split(","), settings };
    if (room === "sample") return { ...common, seed: number("seed") ?? 0, num: number("num") ?? 16 };
    if (room === "between") return { ...common, seeds: [number("seed-a") ?? 0, number("seed-b") ?? 1], between: number("between") ?? 6 };
    if (!picture) throw new Refused(say("no_picture"));
    return { ...common, picture, refine: number("refine") ?? 1 };
  }

  // ---- jobs
  async function go(event) {
    event.preventDefault();
    fault("");
    await tried(async () => { follow(await api("/api/jobs", request())); });
  }
  async function follow(job) {
    const own = job.id;
    current = own;
    while (current === own || !ENDED.includes(job.state)) {
      known.set(own, job);
      past();
      if (current === own) shown(job);
      if (ENDED.includes(job.state)) return;
      await pause(200);
      const found = await tried(() => api(`/api/jobs/${own}`));
      if (!found) { known.delete(own); $("stop").disabled = true; return; }
      job = found;
    }
  }
  function past() {
    while (known.size > 12) known.delete(known.keys().next().value);
    $("history").replaceChildren(...([...known.values()].filter((job) => job.kind === room)).map((job) => el("button", {
      type: "button", "aria-pressed": String(job.id === current), onclick: () => { current = job.id; past(); shown(known.get(job.id)); },
    }, `#${job.id}`)));
  }
  function shown(job) {
    const ended = ENDED.includes(job.state);
    $("stop").disabled = ended;
    $("bars").replaceChildren(...(ended ? [] : job.panels.map((name) => {
      const at = job.progress[name];
      const text = job.stopping ? t("stopping") : job.state === "waiting" ? t("waiting", { n: job.before }) : at ? [`${at.done} / ${at.total}`] : t("starting");
      return el("div", {}, el("span", {}, NAMES[name]), el("progress", at ? { max: at.total, value: at.done } : {}), el("span", {}, text));
    })));
    if (!ended) return;
    const errors = Object.entries(job.errors).map(([name, text]) => el("p", { className: "error" }, text.startsWith(NAMES[name]) ? text : `${NAMES[name]}: ${text}`));
    const alike = new Set(Object.values(job.errors)).size === 1 && errors.length > 1;
    const inside = job.state === "stopped" ? [el("p", {}, t("stopped"))] : job.kind === "encode" ? encoded(job) : drawn(job);
    $("result").replaceChildren(...(alike ? [el("p", { className: "error" }, Object.values(job.errors)[0])] : errors), ...inside);
    $("result").dataset.job = job.id;
  }
  const url = (job, name) => `/api/jobs/${job.id}/${name}.png`;
  const figure = (job, name, title, note, kind = "") => el("figure", {}, el("figcaption", { className: kind }, title, " ", note ? el("small", {}, note) : null), el("img", { src: url(job, name), alt: `${title}`, "data-picture": name }));
  function difference(job) {
    const gap = job.difference;
    if (!gap) return [null, null];
    const numbers = { values: count(gap.values), differing: count(gap.values_differing), share: sig((100 * gap.values_differing) / gap.values), most: gap.max_levels, mean: sig(gap.mean_levels), equal: gap.images_equal, images: gap.images };
    const note = gap.max_levels ? t("magnified", { most: gap.max_levels }) : t("none");
    const shownGap = el("figure", {}, el("figcaption", {}, t("difference"), " ", el("small", {}, note)), el("img", { src: url(job, "difference"), alt: "difference", "data-picture": "difference" }));
    return [shownGap, el("p", { id: "numbers" }, gap.max_levels ? t("unlike", numbers) : t("same", numbers))];
  }
  const panelsOf = (job) => job.panels.filter((name) => job.results[name]);
  function cost(result) {
    return t("cost", { seconds: sig(result.seconds), calls: result.card.network_calls });
  }
  function wiped(left, right, names) {
    return el("div", { className: "wipe" },
      el("div", {}, el("img", { src: left, alt: names[0], draggable: false }), el("img", { src: right, alt: names[1], draggable: false })),
      el("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": names.join(" | ") }),
      el("p", { className: "soft" }, el("span", {}, names[0]), el("span", {}, names[1])));
  }
  function notes(job) {
    const said = [...new Set(panelsOf(job).map((name) => job.results[name].said).filter(Boolean))];
    return said.map((text) => el("p", { className: "soft" }, text));
  }
  function drawn(job) {
    const names = panelsOf(job);
    if (!names.length) return [];
    const [gap, numbers] = difference(job);
    const wide = job.kind === "between" ? " wide" : "";
    const found = [el("div", { className: `pictures${wide}` }, names.map((name) => figure(job, name, NAMES[name], cost(job.results[name]), name)), gap), numbers, ...notes(job)];
    found.push(el("h2", {}, t("way")), way(job, names));
    if (names.length > 1 && !wide) found.push(el("h2", {}, t("wipe")), wiped(url(job, names[0]), url(job, names[1]), names.map((name) => NAMES[name])));
    const commands = names.map((name) => job.results[name].command).filter(Boolean);
    if (commands.length) found.push(el("details", {}, el("summary", {}, t("command")), el("pre", {}, commands.join("\n"))));
    return found;
  }
  function way(job, names) {
    const { timesteps, kept, card, num } = job.results[names[0]];
    const total = kept[kept.length - 1];
    const kind = el("select", { "aria-label": say("way") }, el("option", { value: "x" }, say("noisy")), el("option", { value: "x0" }, say("predicted")));
    const range = el("input", { type: "range", min: 0, max: kept.length - 1, value: kept.length - 1, id: "way", "aria-label": say("way") });
    const images = names.map((name) => el("img", { alt: NAMES[name], "data-picture": `${name}-way` }));
    const text = el("span", { id: "way-at" });
    const show = () => {
      const k = Number(range.value);
      names.forEach((name, i) => { images[i].src = url(job, `${name}-${kind.value}-${k}`); });
      text.replaceChildren(...t(timesteps[k] < 0 ? "way_end" : "way_at", { k: kept[k], n: total, t: timesteps[k] }));
    };
    range.addEventListener("input", show);
    kind.addEventListener("change", show);
    show();
    const some = kept.length < total || num > 16 ? el("p", { className: "soft" }, t("way_some", { kept: kept.length, n: total, images: Math.min(num, 16) })) : null;
    const wide = job.kind === "between" ? " wide" : "";
    return el("div", {}, el("div", { className: "slide" }, range, el("p", {}, text, kind)), el("div", { className: `pictures${wide}` }, names.map((name, i) => el("figure", {}, el("figcaption", { className: name }, NAMES[name]), images[i]))), some);
  }
  function encoded(job) {
    const names = panelsOf(job);
    if (!names.length) return [];
    const [gap, numbers] = difference(job);
    const rows = names.map((name) => {
      const { error } = job.results[name];
      const said = error > 0 ? t("error", { mse: sig(error), psnr: sig(-10 * Math.log10(error)) }) : t("exact");
      return [figure(job, `${name}-noise`, NAMES[name], t("noise"), name), figure(job, name, NAMES[name], [...t("back"), ": ", ...said], name)];
    });
    const original = el("figure", {}, el("figcaption", {}, t("original")), el("img", { src: url(job, `${names[0]}-original`), alt: "original", "data-picture": "original" }));
    return [el("div", { className: "pictures" }, original, rows, gap), numbers, ...notes(job), el("h2", {}, t("wipe")),
      wiped(url(job, `${names[0]}-original`), url(job, names[0]), [say("original"), `${NAMES[names[0]]}, ${say("back")}`])];
  }

  // ---- a picture dropped
  function take(file) {
    if (!file) return;
    const reader = new FileReader();
    reader.onload = () => {
      picture = reader.result.slice(reader.result.indexOf(",") + 1);
      $("dropped").src = reader.result;
      $("dropped").hidden = false;
      $("dropped").alt = file.name;
    };
    reader.readAsDataURL(file);
  }
  $("dropped").addEventListener("error", () => { $("dropped").hidden = true; });
  $("file").addEventListener("change", () => take($("file").files[0]));
  $("drop").addEventListener("click", (event) => { if (event.target.tagName !== "LABEL" && event.target.tagName !== "INPUT") $("file").click(); });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    $("drop").addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }

  // ---- runs
  let picked = null, curves = {}, sides = "";
  async function look() {
    const found = await tried(() => api("/api/things"));
    if (!found || room !== "runs") return;
    const good = found.runs.filter((run) => !run.error);
    if (picked === null) picked = new Set([...good].sort((a, b) => b.time - a.time).slice(0, 2).map((run) => run.name));
    runsTable(found);
    $("reports").replaceChildren(...(found.reports.length ? [el("ul", {}, found.reports.map((each) => el("li", {}, el("a", { href: `/report?of=${encodeURIComponent(each.name)}`, target: "_blank", rel: "noopener" }, each.title))))] : [el("p", { className: "empty" }, t("runs.no_reports"))]));
    await lines(good);
    pairs(good, found.samples);
  }
  function runsTable(found) {
    const rows = found.runs.map((run) => {
      if (run.error) return el("tr", {}, el("td", {}), el("th", { scope: "row" }, run.title), el("td", { colSpan: 3 }, run.error));
      const box = el("input", { type: "checkbox", checked: picked.has(run.name), "aria-label": run.title, onchange: () => { picked[box.checked ? "add" : "delete"](run.name); sides = ""; look(); } });
      const live = run.live && (!run.steps || run.step < run.steps);
      const at = run.steps ? `${count(run.step)} / ${count(run.steps)}` : count(run.step);
      return el("tr", {}, el("td", {}, box), el("th", { scope: "row" }, run.title), el("td", {}, NAMES[run.backend] ?? run.backend ?? ""), el("td", {}, at, " ", live ? el("span", { className: "live" }, t("runs.live")) : null), el("td", {}, sig(run.loss)));
    });
    const head = ["run", "panel", "step", "loss"].map((key) => el("th", {}, t(`runs.${key}`)));
    const table = el("div", { className: "scroll", tabIndex: 0 }, el("table", {}, el("thead", {}, el("tr", {}, el("td", {}), head)), el("tbody", {}, rows)));
    const left = found.left_out ? el("p", { className: "soft" }, t("runs.left_out", { n: found.left_out })) : null;
    $("runs-list").replaceChildren(...[rows.length ? table : el("p", { className: "empty" }, t("runs.none")), left].filter(Boolean));
  }
  async function lines(good) {
    const names = good.map((run) => run.name).filter((name) => picked.has(name)).slice(0, 6);
    $("curve-box").hidden = !names.length;
    $("unlike-box").hidden = names.length < 2;
    const titles = Object.fromEntries(good.map((run) => [run.name, run]));
    const found = await tried(() => Promise.all(names.map((name) => api(`/api/curve?run=${encodeURIComponent(name)}`))));
    if (!found) return;
    curves = names.map((name, i) => ({ run: titles[name], ...found[i] }));
    drawCurve();
    const mean = Math.max(1, ...found.map((each) => each.mean_of)), left = found.reduce((sum, each) => sum + each.left_out, 0);
    $("curve-note").replaceChildren(...(mean > 1 ? t("runs.mean", { n: mean }) : []), " ", ...(left ? t("runs.skipped", { n: left }) : []));
    if (names.length < 2) return;
    const rows = await tried(() => api(`/api/settings?${names.map((name) => `run=${encodeURIComponent(name)}`).join("&")}`));
    if (!rows) return;
    const text = (value) => (value === null ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
    const body = Object.entries(rows.unlike).map(([key, values]) => el("tr", {}, el("th", { scope: "row" }, key), values.map((value) => el("td", {}, text(value)))));
    const head = el("tr", {}, el("th", {}), names.map((name) => el("th", {}, titles[name].title)));
    const equal = el("p", { className: "soft" }, t(body.length ? "runs.equal" : "runs.no_unlike", { n: rows.equal }));
    $("unlike").replaceChildren(...(body.length ? [el("div", { className: "scroll", tabIndex: 0 }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)))] : []), equal);
  }
  drawCurve = () => {
    if (room !== "runs" || !curves.length || typeof Plotly === "undefined" || $("curve-box").hidden) return;
    const shades = ["run0", "run1", "soft", "ink"];
    const traces = curves.map((each, i) => ({ type: "scatter", mode: each.steps.length > 1 ? "lines" : "markers", name: each.run.title, x: each.steps, y: each.losses,
      line: { color: colour(shades[i % 4]), width: i === 0 ? 4 : 1.6, dash: i > 3 ? "dot" : "solid" }, opacity: i === 0 && curves.length > 1 ? 0.55 : 1 }));
    const axis = { gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true, tickfont: { color: colour("soft") } };
    const positive = curves.every((each) => each.losses.every((x) => x === null || x > 0));
    const width = $("curve").parentElement.clientWidth;
    Plotly.react($("curve"), traces, {
      width, height: Math.min(420, Math.max(280, width * 0.45)), margin: { l: 50, r: 10, t: 10, b: 42 }, paper_bgcolor: colour("paper"), plot_bgcolor: colour("paper"),
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("ink") }, hovermode: "x unified", showlegend: true,
      hoverlabel: { bgcolor: colour("paper") }, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 }, dragmode: width < 520 ? false : "zoom", uirevision: "same",
      xaxis: { ...axis, showgrid: false, title: { text: say("runs.step") } }, yaxis: { ...axis, type: positive ? "log" : "linear", nticks: 6, tickformat: positive ? "~g" : undefined, title: { text: say("runs.loss") } },
    }, { displaylogo: false, responsive: false, displayModeBar: false });
  };
  function pairs(good, samples) {
    const every = good.filter((run) => picked.has(run.name)).flatMap((run) => [...run.grids].reverse().map((file) => ({ of: run.name, file, title: `${run.title}, ${Number(file.slice(5, -4))}` })));
    every.push(...samples.map((each) => ({ of: each.name, file: "grid.png", title: each.title })));
    $("grids-box").hidden = every.length < 2;
    const all = JSON.stringify(every);
    if (every.length < 2 || all === sides) return;
    sides = all;
    const other = every.findIndex((each) => each.of !== every[0].of);
    [["left", 0], ["right", other < 0 ? 1 : other]].forEach(([id, first]) => {
      const before = $(id).value;
      $(id).replaceChildren(...every.map((each) => el("option", { value: `/grid?of=${encodeURIComponent(each.of)}&file=${each.file}` }, each.title)));
      $(id).selectedIndex = first;
      if (before && [...$(id).options].some((option) => option.value === before)) $(id).value = before;
    });
    wipeGrids();
  }
  function wipeGrids() {
    const names = ["left", "right"].map((id) => $(id).selectedOptions[0]?.textContent);
    $("grids").replaceChildren(wiped($("left").value, $("right").value, names));
  }
  for (const id of ["left", "right"]) $(id).addEventListener("change", wipeGrids);

  // ---- the ladder
  let climbing = null;
  async function climb(event) {
    event.preventDefault();
    fault("");
    const rungs = [...document.querySelectorAll("input[name=rung]:checked")].map((box) => box.value);
    await tried(async () => {
      if (!rungs.length) throw new Refused(say("no_rung"));
      const all = rungs.length === document.querySelectorAll("input[name=rung]").length;
      let job = await api("/api/jobs", { kind: "ladder", preset: $("preset").value, steps: number("ladder-steps") ?? 10, rungs: all ? [] : rungs });
      climbing = job.id;
      $("climb").disabled = true;
      $("ladder-stop").disabled = false;
      try {
        for (;;) {
          rungsShown(job, rungs);
          if (ENDED.includes(job.state)) break;
          await pause(300);
          job = await api(`/api/jobs/${job.id}`);
        }
      } finally {
        $("climb").disabled = false;
        $("ladder-stop").disabled = true;
      }
    });
  }
  function rungsShown(job, rungs) {
    const result = job.results.ladder;
    for (const row of document.querySelectorAll("#ladder-table tbody tr")) {
      const name = row.dataset.rung, cells = row.querySelectorAll("td");
      row.hidden = !rungs.includes(name);
      ["reference", "torch", "jittor"].forEach((panel, i) => {
        const traces = job.said.filter((said) => said.rung === name && said.panel === panel);
        const seconds = traces.reduce((sum, said) => sum + said.seconds, 0);
        cells[i].replaceChildren(...(traces.length ? [`${sig(seconds, 2)} s${traces.length > 1 ? ` (${traces.length})` : ""}`] : []));
      });
      const judged = result?.rungs.find((each) => each.rung === name);
      cells[3].className = judged ? (judged.verdict === "pass" ? "pass" : "fail") : "";
      [judged?.verdict ?? "", ...["error", "floor", "margin"].map((key) => sig(judged?.[key]))].forEach((text, i) => cells[3 + i].replaceChildren(text));
    }
    const text = job.errors.ladder ? [job.errors.ladder] : job.state === "stopped" ? t("stopped") : result ? [result.conclusion] : job.state === "waiting" ? t("waiting", { n: job.before }) : t("ladder.traced", { n: job.said.length });
    $("ladder-said").replaceChildren(...text);
    $("ladder-said").className = job.errors.ladder ? "error" : "";
  }

  // ---- the panels, as they are
  let lost = false;
  async function beat() {
    for (;;) {
      try {
        const state = await api("/api/state");
        for (const chip of $("panels").children) {
          const panel = state.panels[chip.dataset.panel];
          chip.dataset.state = panel.state;
          chip.title = panel.failure || "";
          chip.replaceChildren(NAMES[chip.dataset.panel], " ", panel.version && panel.state !== "missing" ? `${panel.version.split("+")[0]}, ${panel.device}, ` : "", ...t(`state.${panel.state}`));
        }
        if (lost) fault("");
        lost = false;
        if (room === "runs") await look();
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (!lost) fault(error.message);
        lost = true;
      }
      await pause(1000);
    }
  }

  if (location.search) history.replaceState(null, "", location.pathname + location.hash); // the token
  for (const kind of ["lang", "theme"]) {
    choose(kind, localStorage.getItem(`diptych-${kind}`) || root.dataset[kind], false);
    for (const button of document.querySelectorAll(`button[data-${kind}]`)) button.addEventListener("click", () => choose(kind, button.dataset[kind], true));
  }
  addEventListener("hashchange", enter);
  addEventListener("resize", () => drawCurve());
  $("controls").addEventListener("submit", go);
  $("controls").addEventListener("input", (event) => { if (["solver", "steps", "order", "eta", "spacing"].includes(event.target.id)) quality(); });
  $("source").addEventListener("change", () => { fault(""); opened(); });
  $("stop").addEventListener("click", () => tried(() => api(`/api/jobs/${current}/stop`, {})));
  $("ladder-form").addEventListener("submit", climb);
  $("ladder-stop").addEventListener("click", () => tried(() => api(`/api/jobs/${climbing}/stop`, {})));
  enter();
  tried(models).then(beat);
})();
