"use strict";
// Comfort only: the page says everything without it. Text is set as text, never as markup.
for (const plot of document.querySelectorAll(".plot")) {
  const samples = JSON.parse(plot.dataset.samples);
  if (!samples.length) continue;
  const cursor = document.createElement("i"), readout = document.createElement("span");
  cursor.className = "cursor"; readout.className = "readout";
  let shown = samples.length - 1;
  const show = (index) => {
    shown = Math.max(0, Math.min(samples.length - 1, index));
    const [x, y, text] = samples[shown];
    cursor.style.left = readout.style.left = x + "%"; cursor.style.top = y + "%";
    readout.style.left = Math.max(12, Math.min(88, x)) + "%";
    readout.textContent = text;
    plot.append(cursor, readout);
  };
  const hide = () => { cursor.remove(); readout.remove(); };
  plot.tabIndex = 0;
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect(), x = (100 * (event.clientX - box.left)) / box.width;
    let best = 0;
    samples.forEach((sample, i) => { if (Math.abs(sample[0] - x) < Math.abs(samples[best][0] - x)) best = i; });
    show(best);
  });
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("focus", () => show(shown));
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); show(shown + by); }
  });
}

const cards = [...document.querySelectorAll(".card")], tools = document.querySelector(".tools");
if (tools) {
  tools.hidden = false;
  const filters = [...tools.querySelectorAll(".filters button")], all = tools.querySelector(".all");
  for (const button of filters) {
    button.addEventListener("click", () => {
      for (const other of filters) other.setAttribute("aria-pressed", String(other === button));
      const wanted = button.dataset.ability;
      for (const card of cards) card.hidden = wanted !== "" && card.dataset.ability !== wanted;
    });
  }
  let opened = false;
  all.addEventListener("click", () => {
    opened = !opened;
    all.textContent = opened ? "close all" : "open all";
    for (const card of cards) card.open = opened;
  });
}

const dialog = document.querySelector(".zoomed");
for (const image of document.querySelectorAll(".zoom img")) {
  const open = () => {
    dialog.querySelector("img").src = image.src;
    dialog.querySelector("p").textContent = image.alt;
    dialog.showModal();
  };
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.addEventListener("click", open);
  image.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); } });
}
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
