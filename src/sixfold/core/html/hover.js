// Hover values: a line and a box at the nearest point of a chart, by mouse, touch or arrow keys.
// Texts come formatted from a JSON block; they are set as text, never as markup.
"use strict";

function box(tip, head, rows) {
  tip.replaceChildren();
  const title = document.createElement("b");
  title.textContent = head;
  tip.append(title);
  for (const [name, kind, value] of rows) {
    const row = document.createElement("span");
    const key = document.createElement("i");
    key.className = "key " + kind;
    const label = document.createElement("span");
    label.textContent = name;
    const figure = document.createElement("em");
    figure.textContent = value;
    row.append(key, label, figure);
    tip.append(row);
  }
  tip.hidden = false;
}

function put(tip, at) {
  tip.style.left = at + "%";
  tip.style.transform = `translateX(${at < 50 ? "12px" : "calc(-100% - 12px)"})`;
}

for (const plot of document.querySelectorAll("[data-hover]")) {
  const data = JSON.parse(document.getElementById(plot.dataset.hover).textContent);
  const cursor = plot.querySelector(".cursor");
  const tip = plot.querySelector(".tip");
  let here = 0;
  const show = (index) => {
    here = Math.max(0, Math.min(data.at.length - 1, index));
    const at = data.at[here];
    cursor.hidden = false;
    cursor.style.left = at + "%";
    const rows = data.rows.map(([name, kind, texts]) => [name, kind, texts[here]]);
    box(tip, data.head[here], rows.filter((row) => row[2] !== "\u2013"));
    put(tip, at);
  };
  const hide = () => { cursor.hidden = tip.hidden = true; };
  const move = (event) => {
    const frame = plot.getBoundingClientRect();
    const at = 100 * (event.clientX - frame.left) / frame.width;
    let low = 0, high = data.at.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (data.at[middle] < at) low = middle; else high = middle;
    }
    show(at - data.at[low] < data.at[high] - at ? low : high);
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => { if (plot.matches(":focus-visible")) show(here); });
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20 }[event.key];
    if (event.key === "Escape") hide();
    if (by) { show(here + by); event.preventDefault(); }
  });
}

for (const plot of document.querySelectorAll("[data-matrix]")) {
  const { names, counts } = JSON.parse(document.getElementById(plot.dataset.matrix).textContent);
  const tip = plot.querySelector(".tip");
  const sums = counts.map((row) => row.reduce((sum, v, k) => sum + (k % 2 ? v : 0), 0));
  const move = (event) => {
    const frame = plot.getBoundingClientRect();
    const cell = (at, from, size) =>
      Math.max(0, Math.min(names.length - 1, Math.floor(names.length * (at - from) / size)));
    const column = cell(event.clientX, frame.left, frame.width);
    const row = cell(event.clientY, frame.top, frame.height);
    let count = 0;
    for (let k = 0; k < counts[row].length; k += 2) {
      if (counts[row][k] === column) count = counts[row][k + 1];
    }
    const share = sums[row] ? (100 * count / sums[row]).toFixed(1) + "%" : "no images";
    box(tip, names[row] + " → " + names[column],
        [["images", row === column ? "training" : "validation", count + " (" + share + ")"]]);
    const at = 100 * (event.clientX - frame.left) / frame.width;
    put(tip, at);
    tip.style.top = 100 * (row + 1) / names.length + "%";
  };
  plot.addEventListener("pointermove", move);
  plot.addEventListener("pointerdown", move);
  plot.addEventListener("pointerleave", () => { tip.hidden = true; });
}
