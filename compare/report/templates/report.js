"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set();
const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
const say = (text) => { document.getElementById("status").textContent = text; };

// --- Tables that are in the page: sorted by a click or Enter on a column's head ---

function setSorted(heads, column, direction) {
  heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? direction : "none"));
}

// Numbers before texts before nothing, which stays last in both directions.
function compareKeys(a, b, sign) {
  const noneA = a === null || a === "", noneB = b === null || b === "";
  if (noneA || noneB) return noneA - noneB;
  if (typeof a === "number" && typeof b === "number") return sign * (a < b ? -1 : a > b ? 1 : 0);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function nextDirection(head) {
  return head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
}

for (const table of all("table.sortable:not(#table-runs)")) {
  const heads = all("thead th", table);
  const body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const direction = nextDirection(head);
    const key = (row) => {
      const cell = row.cells[column];
      if (cell.dataset.v === undefined) return cell.textContent;
      return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    };
    const keyed = Array.from(body.rows, (row) => [key(row), row]);
    keyed.sort((a, b) => compareKeys(a[0], b[0], direction === "ascending" ? 1 : -1));
    body.append(...keyed.map((entry) => entry[1]));
    setSorted(heads, column, direction);
    say(`Sorted by ${head.textContent.trim()}, ${direction}.`);
  }));
}

// --- Profiles, computed anew for the methods shown ---

function commonProblems(shown, ofClass) {
  const found = [];
  data.profiles.problem_class.forEach((c, p) => {
    if ((ofClass < 0 || c === ofClass) && shown.every((s) => data.profiles.traces[s][p] !== null)) {
      found.push(p);
    }
  });
  return found;
}

// r = cost / best (Dolan and More); a cost of 0 has the ratio 1.
function ratios(cost) {
  return cost.map((row) => {
    const best = Math.min(...row);
    return row.map((c) => (c === Infinity ? Infinity : c === best ? 1 : best > 0 ? c / best : Infinity));
  });
}

const last = (trace) => (trace[1].length ? trace[1][trace[1].length - 1] : Infinity);

// Seconds until f_L + tau (f_0 - f_L) (More and Wild).
function timesToTarget(problems, shown, tau) {
  return problems.map((p) => {
    const traces = shown.map((s) => data.profiles.traces[s][p]);
    const best = Math.min(...traces.map(last));
    const start = Math.max(...traces.map((t) => (t[1].length ? t[1][0] : -Infinity)));
    if (best === Infinity) return traces.map(() => Infinity);
    const target = best + tau * (start - best);
    return traces.map((t) => {
      const i = t[1].findIndex((d) => d <= target);
      return i < 0 ? Infinity : t[0][i];
    });
  });
}

// The share of rows with a value <= x in a column, as a sorted list of finite values.
const column = (rows, j) => rows.map((row) => row[j]).filter(Number.isFinite).sort((a, b) => a - b);

function axis(text) {
  const [low, high, log] = text.split(" ").map(Number);
  return (v) => {
    const x = log ? Math.log(Math.max(v, 1e-300) / low) / Math.log(high / low) : (v - low) / (high - low);
    return Math.min(Math.max(x, 0), 1);
  };
}

function stepPath(values, total, box, x, range, y) {
  const [left, top, right, bottom] = box;
  const height = (share) => bottom - y(share) * (bottom - top);
  let i = 0;
  while (i < values.length && values[i] <= range[0]) i += 1;
  let path = `M${left},${height(total ? i / total : 0).toFixed(1)}`;
  while (i < values.length && values[i] <= range[1]) {
    const at = values[i];
    while (i < values.length && values[i] === at) i += 1;
    path += `H${(left + x(at) * (right - left)).toFixed(1)}V${height(i / total).toFixed(1)}`;
  }
  return [`${path}H${right}`, height(total ? i / total : 0)];
}

function spread(wanted, top, bottom) {
  const order = wanted.map((_, i) => i).sort((a, b) => wanted[a] - wanted[b] || a - b);
  const step = Math.min(14, (bottom - top) / Math.max(wanted.length, 1));
  const placed = [];
  let previous = -Infinity;
  for (const i of order) { previous = placed[i] = Math.max(wanted[i], previous + step); }
  let limit = bottom;
  for (const i of order.reverse()) { placed[i] = Math.min(placed[i], limit); limit = placed[i] - step; }
  return placed;
}

function redraw(name, rows, shown) {
  const svg = document.getElementById(`chart-${name}`);
  if (!svg) return;
  const box = svg.dataset.box.split(" ").map(Number);
  const range = svg.dataset.x.split(" ").map(Number);
  const x = axis(svg.dataset.x), y = axis(svg.dataset.y);
  const groups = all("g.series", svg);
  const values = shown.map((_, j) => column(rows, j));
  const drawn = values.map((v) => stepPath(v, rows.length, box, x, range, y));
  const at = spread(drawn.map((d) => d[1]), box[1], box[3]);
  const table = document.getElementById(`values-${name}`);
  shown.forEach((s, j) => {
    groups[s].querySelector("path").setAttribute("d", drawn[j][0]);
    groups[s].querySelector("text").setAttribute("y", (at[j] + 4).toFixed(1));
    all("td", table.tBodies[0].rows[s]).forEach((cell) => {
      const count = values[j].filter((v) => v <= Number(cell.dataset.x)).length;
      cell.textContent = rows.length ? `${((100 * count) / rows.length).toFixed(1)}%` : "–";
    });
  });
}

function redrawProfiles() {
  const shown = data.profiles.labels.map((_, s) => s).filter((s) => !hidden.has(data.profiles.labels[s]));
  const ofClass = Number(document.getElementById("profile-class").value);
  const tau = Number(document.getElementById("profile-tolerance").value);
  const problems = commonProblems(shown, ofClass);
  const final = problems.map((p) => shown.map((s) => last(data.profiles.traces[s][p])));
  const times = timesToTarget(problems, shown, tau);
  redraw("quality", ratios(final), shown);
  redraw("speed", ratios(times.map((row) => row.map((t) => Math.max(t, 1e-4)))), shown);
  redraw("data", times, shown);
  document.getElementById("profile-count").textContent = problems.length.toLocaleString("en");
}

// --- Every run: one page of rows at a time ---

const digits = (v) => {
  const size = Math.abs(v);
  const text = size >= 100 ? v.toLocaleString("en", { maximumFractionDigits: 0 })
    : size >= 10 ? v.toFixed(1) : size >= 1 ? v.toFixed(2)
      : size >= 5e-4 ? v.toFixed(3) : size < 1e-9 ? "0" : v > 0 ? "<0.001" : "-<0.001";
  return text.replace("-", "−");
};

function shownValue(value, kind) {
  if (value === null || value === undefined) return "–";
  if (kind === "text" || kind === "code") return value;
  if (value === Infinity) return "∞";
  if (kind === "percent") return `${digits(100 * value)}%`;
  if (kind === "seconds") return `${digits(value)} s`;
  if (kind === "count") return value.toLocaleString("en");
  return digits(value);
}

const PAGE = 50;
const runs = { rows: data.runs.rows, order: data.runs.rows.map((_, i) => i), page: 0, found: [] };
for (const row of runs.rows) {
  row.forEach((value, j) => { if (value === "Infinity" && data.runs.kinds[j] !== "text") row[j] = Infinity; });
}
const runsTable = document.getElementById("table-runs");

function showRuns() {
  const body = runsTable.tBodies[0];
  const pages = Math.max(1, Math.ceil(runs.found.length / PAGE));
  runs.page = Math.min(Math.max(runs.page, 0), pages - 1);
  const first = runs.page * PAGE;
  const rows = runs.found.slice(first, first + PAGE).map((i) => {
    const tr = document.createElement("tr");
    runs.rows[i].forEach((value, j) => {
      const kind = data.runs.kinds[j];
      const cell = document.createElement(j ? "td" : "th");
      if (!j) cell.scope = "row";
      if (kind === "code") {
        cell.append(document.createElement("code"));
        cell.firstChild.textContent = value;
      } else {
        cell.textContent = shownValue(value, kind);
        if (kind !== "text") cell.dataset.v = value === null ? "" : value;
      }
      tr.append(cell);
    });
    return tr;
  });
  body.replaceChildren(...rows);
  document.getElementById("runs-count").textContent = runs.found.length
    ? `${(first + 1).toLocaleString("en")} to ${Math.min(first + PAGE, runs.found.length).toLocaleString("en")} of ${runs.found.length.toLocaleString("en")} runs`
    : "no run matches";
  document.getElementById("runs-back").disabled = runs.page === 0;
  document.getElementById("runs-next").disabled = runs.page >= pages - 1;
}

function filterRuns() {
  const words = document.getElementById("runs-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  runs.found = runs.order.filter((i) => {
    const row = runs.rows[i];
    if (hidden.has(row[0])) return false;
    const text = words.length ? row.join(" ").toLowerCase() : "";
    return words.every((word) => text.includes(word));
  });
  runs.page = 0;
  showRuns();
}

{
  const heads = all("thead th", runsTable);
  heads.forEach((head, j) => head.querySelector("button").addEventListener("click", () => {
    const direction = nextDirection(head);
    const sign = direction === "ascending" ? 1 : -1;
    runs.order.sort((a, b) => compareKeys(runs.rows[a][j], runs.rows[b][j], sign) || a - b);
    setSorted(heads, j, direction);
    filterRuns();
    say(`Sorted by ${head.textContent.trim()}, ${direction}.`);
  }));
  document.getElementById("runs-back").addEventListener("click", () => { runs.page -= 1; showRuns(); });
  document.getElementById("runs-next").addEventListener("click", () => { runs.page += 1; showRuns(); });
  document.getElementById("runs-filter").addEventListener("input", filterRuns);
}

// --- Methods shown and hidden ---

function showMethods() {
  hidden.clear();
  for (const box of all("#methods-shown input")) if (!box.checked) hidden.add(box.value);
  for (const element of all("[data-m]")) {
    const hide = element.dataset.m.split("\n").some((name) => hidden.has(name));
    if (element instanceof SVGElement) element.style.display = hide ? "none" : "";
    else element.hidden = hide;
  }
  redrawProfiles();
  filterRuns();
  const count = all("#methods-shown input").length - hidden.size;
  say(`${count} methods shown, profiles computed for them.`);
}

for (const box of all("#methods-shown input")) box.addEventListener("change", showMethods);
for (const id of ["profile-class", "profile-tolerance"]) {
  document.getElementById(id).addEventListener("change", redrawProfiles);
}
filterRuns();
document.documentElement.dataset.ready = "yes";
