"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const many = data.runs.length > 1;
  const touch = matchMedia("(pointer: coarse)").matches;
  const darkWish = matchMedia("(prefers-color-scheme: dark)");
  // Okabe and Ito's colours, made darker or lighter until they can be told from the background.
  const LIGHT = ["#0072b2", "#d55e00", "#00805d", "#b0438a", "#8a6d00", "#4b3fb5", "#1b1f24", "#2a8fc4"];
  const DARK = ["#56b4e9", "#ff9b54", "#2ecfa0", "#e79acb", "#f0e442", "#b3a7ff", "#e4e8ec", "#8fd0f5"];
  const MARGIN = { l: 48, r: 14, t: 16, b: 36 };
  const DASHES = ["solid", "dashdot", "longdash"];
  const state = { axis: data.charts.some((c) => c.lines.length) && everyRunHasSteps() ? "step" : "epoch", marks: true, at: null };
  const views = data.charts.map((chart) => ({
    chart, div: document.querySelector(`#chart-${chart.id} .plot`), item: chart.item, log: chart.log, drawn: false, hidden: new Set(),
  }));
  let syncing = false;

  function everyRunHasSteps() {
    return data.runs.every((_, i) => data.charts.some((c) => c.lines.some((l) => l.run === i && l.of === "step")));
  }
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkWish.matches);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const colour = (i) => (isDark() ? DARK : LIGHT)[i % LIGHT.length];
  // Plotly reads a little HTML in what it writes: names are text.
  const plain = (words) => String(words).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const parts = (name) => String(name).match(/(?:\d,\d|[^, ])*[, ]|(?:\d,\d|[^, ])+/g) || [];
  function folded(name, most = 32) {  // Plotly breaks no lines of its own
    const found = [""];
    for (const part of parts(name)) {
      if (found.at(-1) && (found.at(-1) + part).length > most) found.push("");
      found.push(found.pop() + part);
    }
    return found.map(plain).join("<br>");
  }

  // ---- steps and epochs ----------------------------------------------------------------------------------------------

  function between(pairs, from, value) {
    if (pairs.length < 2) return null;
    const to = 1 - from;
    let low = 0, high = pairs.length - 1;
    if (value >= pairs[high][from]) {
      low = high - 1;
    } else {
      while (high - low > 1) {
        const middle = (low + high) >> 1;
        if (pairs[middle][from] <= value) low = middle; else high = middle;
      }
    }
    const [a, b] = [pairs[low], pairs[low + 1]];
    return a[to] + ((value - a[from]) / (b[from] - a[from])) * (b[to] - a[to]);
  }
  function place(run, of, value) {
    if (value === null || of === state.axis) return value;
    const ends = data.runs[run].ends;
    return of === "step" ? between(ends, 1, value) : between(ends, 0, value);
  }
  function markPlace(mark) {
    const from = mark.step === null ? null : place(mark.run, "step", mark.step);
    if (from !== null) return from;
    return place(mark.run, "epoch", mark.epoch);
  }

  // ---- drawing -------------------------------------------------------------------------------------------------------

  function wholeRange() {  // one for all charts, so that what happened together stands together
    let [low, high] = [Infinity, -Infinity];
    for (const chart of data.charts) for (const line of chart.lines) for (const x of [line.x[0], line.x[line.x.length - 1]]) {
      const at = place(line.run, line.of, x);
      if (at !== null) { low = Math.min(low, at); high = Math.max(high, at); }
    }
    if (low > high) return [0, 1];
    const room = Math.max((high - low) * 0.015, high > low ? 0 : 0.6);
    return [low - room, high + room];
  }
  function wholeEpochs() {
    const [low, high] = wholeRange();
    return state.axis === "epoch" && high - low < 12;
  }
  function lineTrace(view, line) {
    const index = many ? line.run : view.chart.items.indexOf(line.item);
    const xs = line.x.map((x) => place(line.run, line.of, x));
    if (xs.every((x) => x === null)) return null;
    const undone = line.kind === "undone";
    const range = line.kind === "range";
    const validated = line.kind === "val" && view.chart.id === "loss";
    const name = nameOf(line);
    const points = line.of === "epoch" && line.x.length <= 60;
    const suffix = undone ? " (undone)" : range ? " (range)" : validated ? " (val)" : "";
    return {
      type: "scatter", x: xs, y: view.log ? line.y.map((y) => (y > 0 ? y : null)) : line.y, connectgaps: false, mode: points ? "lines+markers" : "lines",
      name: folded(name + suffix), visible: !view.hidden.has(name), cliponaxis: !view.chart.range, opacity: undone ? 0.45 : range ? 0.3 : 1, marker: { size: 5 }, hovertemplate: "%{y:.5g}",
      line: { color: colour(index), width: undone ? 1.2 : range ? 1 : 1.8, dash: undone ? "dot" : validated ? "dash" : DASHES[Math.floor(index / LIGHT.length) % DASHES.length] },
    };
  }
  const nameOf = (line) => (many ? data.runs[line.run].name : line.item);
  function drawLegend(view, lines) {  // our own: it wraps, leaves the curves their room, and its names are text
    const place = view.div.parentElement.querySelector(".legend");
    const entries = [...new Map(lines.map((line) => [nameOf(line), many ? line.run : view.chart.items.indexOf(line.item)]))];
    place.replaceChildren(...(entries.length < 2 && !many ? [] : entries).map(([name, index]) => {
      const button = document.createElement("button");
      const dot = document.createElement("span");
      dot.className = "swatch";
      dot.style.background = colour(index);
      button.type = "button";
      button.append(dot, ...parts(name).flatMap((part) => [part, document.createElement("wbr")]));
      button.setAttribute("aria-pressed", String(!view.hidden.has(name)));
      button.addEventListener("click", () => {
        if (!view.hidden.delete(name)) view.hidden.add(name);
        draw(view);
      });
      return button;
    }));
  }
  function markTrace() {
    const marks = data.marks.map((m) => [m, markPlace(m)]).filter(([, x]) => x !== null);
    if (!state.marks || !marks.length) return null;
    return {
      type: "scatter", mode: "markers", yaxis: "y2", name: "incident", cliponaxis: false,
      x: marks.map(([, x]) => x), y: marks.map(() => 1), customdata: marks.map(([m]) => m.anchor),
      text: marks.map(([m]) => folded(m.text, 60)), hovertemplate: "%{text}<br><i>click to read</i>",
      marker: {
        size: 11, line: { width: 1, color: css("--raised") }, symbol: marks.map(([m]) => (m.kind === "escalation" ? "diamond" : "triangle-down")),
        color: marks.map(([m]) => (many ? colour(m.run) : m.kind === "escalation" ? css("--bad") : css("--mind"))),
      },
    };
  }
  function shapes(view) {
    const drawn = view.chart.limits.map((limit) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: limit.y, y1: limit.y, layer: "above",
      line: { color: many ? colour(limit.run) : css("--mind"), width: 1.5, dash: "dash" },
    }));
    if (state.marks && data.marks.length <= 30) {
      for (const mark of data.marks) {
        const x = markPlace(mark);
        if (x !== null) drawn.push({ type: "line", yref: "paper", x0: x, x1: x, y0: 0, y1: 1, layer: "below", line: { color: css("--soft"), width: 0.7, dash: "dot" } });
      }
    }
    const at = state.at && markPlace(state.at);
    if (at !== null && at !== undefined) drawn.push({ type: "line", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { color: css("--accent"), width: 2 } });
    return drawn;
  }
  function heights(view) {  // all that the vertical axis has to hold
    const lines = view.chart.lines.filter((line) => (!view.item || line.item === view.item) && !view.hidden.has(nameOf(line)));
    return [...lines.flatMap((line) => line.y), ...view.chart.limits.map((limit) => limit.y)].filter((y) => y !== null);
  }
  function logTicks([from, to], pixels, binary) {  // of all sets whose labels have room, the one with the most
    const [low, high] = [10 ** from, 10 ** to];
    const sets = [];
    if (binary) {  // a scale that doubles and halves
      for (let by = 1; by <= 64; by *= 2) sets.push(Array.from({ length: 300 }, (_, i) => 2 ** ((i - 150) * by)));
    } else {
      const unit = 10 ** Math.floor(Math.log10(high - low));
      for (const part of [0.1, 0.2, 0.5, 1, 2, 5]) {
        const first = Math.ceil(low / (part * unit));
        const count = Math.floor(high / (part * unit)) - first + 1;
        if (count < 100) sets.push(Array.from({ length: Math.max(count, 0) }, (_, i) => Number(((first + i) * part * unit).toPrecision(6))));
      }
      const decades = Array.from({ length: Math.ceil(to) - Math.floor(from) + 1 }, (_, i) => Math.floor(from) + i);
      sets.push(decades.flatMap((e) => [1, 2, 5].map((s) => Number(`${s}e${e}`))), decades.flatMap((e) => [1, 3].map((s) => Number(`${s}e${e}`))));
      for (let by = 1; by <= decades.length; by++) sets.push(decades.filter((e) => e % by === 0).map((e) => Number(`1e${e}`)));
    }
    const room = (set) => set.every((y, i) => !i || (Math.log10(y / set[i - 1]) / (to - from)) * pixels >= 22);
    return sets.map((set) => set.filter((y) => y >= low && y <= high)).filter(room).reduce((best, set) => (set.length > best.length ? set : best), []);
  }
  function vertical(view) {
    if (!view.log) {
      const all = heights(view);
      const single = all.length && all[0] >= 0 && all.every((y) => y === all[0]) ? [0, 2 * all[0] || 1] : null;  // else Plotly shows it between -1 and 1
      const range = view.chart.range || single;
      return { type: "linear", exponentformat: "power", nticks: 6, fixedrange: touch, ...(range ? { range: [...range] } : {}) };
    }
    const known = heights(view).filter((y) => y > 0);
    if (!known.length) return { type: "log", tickvals: [], fixedrange: true };
    const [low, high] = known.reduce(([a, b], y) => [Math.min(a, y), Math.max(b, y)], [Infinity, 0]).map(Math.log10);
    const binary = view.chart.id === "scale";
    const beyond = Math.max((high - low) * 0.06, binary ? Math.log10(2) * 1.1 : 0.05);
    const range = [low - beyond, high + beyond];
    const values = logTicks(range, view.div.clientHeight - MARGIN.t - MARGIN.b, binary);
    const words = (y) => (y >= 1e-3 && y < 1e6 ? y.toLocaleString("en", { maximumSignificantDigits: 6 }) : y.toExponential().replace("+", ""));
    return { type: "log", range, tickvals: values, ticktext: values.map(words), fixedrange: true };
  }
  function layout(view) {
    const axis = { gridcolor: css("--grid"), zerolinecolor: css("--grid"), linecolor: css("--line"), automargin: true };
    const limits = view.chart.limits.filter((l, i, all) => all.findIndex((o) => o.y === l.y) === i);
    const yaxis = vertical(view);
    const below = (y) => view.log && Math.log10(y) > yaxis.range[1] - 0.2 * (yaxis.range[1] - yaxis.range[0]);  // there is no room above
    return {
      margin: MARGIN, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: css("--soft") }, hovermode: "x unified", hoverdistance: 16,
      hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--text") }, namelength: -1 },
      showlegend: false, modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--text") }, dragmode: touch ? false : "zoom",
      xaxis: { ...axis, title: { text: state.axis === "step" ? "optimizer step" : "epoch", standoff: 6 }, range: (view.range || wholeRange()).slice(), ...(wholeEpochs() ? { dtick: 1 } : {}) },
      yaxis: { ...axis, ...yaxis },
      yaxis2: { overlaying: "y", range: [0, 1], visible: false, fixedrange: true },
      shapes: shapes(view),
      annotations: limits.map((l) => ({
        xref: "paper", x: 1, xanchor: "right", y: view.log ? Math.log10(l.y) : l.y, yanchor: below(l.y) ? "top" : "bottom", text: plain(l.text), showarrow: false,
        font: { size: 11, color: css("--mind") }, bgcolor: css("--raised"), opacity: 0.9,
      })),
    };
  }
  function draw(view) {
    const lines = view.chart.lines.filter((line) => !view.item || line.item === view.item);
    const traces = lines.map((line) => lineTrace(view, line)).filter(Boolean);
    const empty = view.div.parentElement.querySelector(".empty");
    empty.hidden = traces.length > 0;
    const marks = markTrace();
    if (marks) traces.push(marks);
    drawLegend(view, lines);
    Plotly.react(view.div, traces, layout(view), {
      responsive: true, displaylogo: false, doubleClick: "reset", displayModeBar: touch || innerWidth < 700 ? false : "hover",
      modeBarButtons: [["toImage", "zoomIn2d", "zoomOut2d"]],  // and none that would send data anywhere
    });
    if (!view.drawn) {
      view.drawn = true;
      view.div.on("plotly_click", (event) => opened(view, event));
      view.div.on("plotly_relayout", (change) => zoomed(view, change));
    }
  }
  const drawAll = () => views.forEach(draw);
  function opened(view, event) {
    const mark = event.points.find((point) => point.customdata);
    const y = event.event.clientY - view.div.getBoundingClientRect().top;
    if (mark && y < view.div.layout.margin.t + 22) location.hash = mark.customdata;
  }
  function zoomed(view, change) {
    const range = change["xaxis.range[0]"] !== undefined ? [change["xaxis.range[0]"], change["xaxis.range[1]"]] : change["xaxis.range"];
    if (syncing || !range) return;
    syncing = true;
    const others = views.filter((other) => other !== view);
    for (const one of views) one.range = range;
    Promise.all(others.map((other) => Plotly.relayout(other.div, { "xaxis.range": range.slice() })))
      .finally(() => { syncing = false; });
  }

  // ---- what can be pressed -------------------------------------------------------------------------------------------

  function repaint() {
    document.querySelectorAll(".swatch[data-run]").forEach((dot) => { dot.style.background = colour(Number(dot.dataset.run)); });
    drawAll();
  }
  document.getElementById("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("yolo-stable-theme", root.dataset.theme); } catch { /* a page from a file may have no storage */ }
    repaint();
  });
  try { const kept = localStorage.getItem("yolo-stable-theme"); if (kept === "dark" || kept === "light") root.dataset.theme = kept; } catch { /* as above */ }
  darkWish.addEventListener("change", repaint);

  const axes = document.querySelectorAll("[data-axis]");
  const showAxis = () => axes.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.axis === state.axis)));
  axes.forEach((button) => button.addEventListener("click", () => {
    state.axis = button.dataset.axis;
    for (const view of views) view.range = undefined;
    showAxis();
    drawAll();
  }));
  showAxis();
  document.getElementById("marks")?.addEventListener("change", (event) => { state.marks = event.target.checked; drawAll(); });
  document.getElementById("reset")?.addEventListener("click", () => {
    state.at = null;
    for (const view of views) { view.range = undefined; draw(view); }
  });
  for (const view of views) {
    const figure = document.getElementById(`chart-${view.chart.id}`);
    const items = figure.querySelector("select");
    if (items) {
      items.value = view.item;
      items.addEventListener("change", () => { view.item = items.value; draw(view); });
    }
    const log = figure.querySelector("input");
    log.checked = view.log;
    log.addEventListener("change", () => { view.log = log.checked; draw(view); });
  }
  document.querySelectorAll(".filter input").forEach((box) => box.addEventListener("change", () => {
    box.closest("section").querySelectorAll(`.timeline li[data-kind="${box.value}"]`).forEach((li) => { li.hidden = !box.checked; });
  }));
  document.querySelectorAll("[data-show]").forEach((link) => link.addEventListener("click", () => {
    state.at = data.marks.find((mark) => mark.anchor === link.dataset.show) || null;
    drawAll();
  }));
  function openTarget() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let element = target; element; element = element.parentElement) if (element.tagName === "DETAILS") element.open = true;
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", openTarget);
  repaint();
  if (location.hash) openTarget();
  root.dataset.ready = "yes";
})();
