"use strict";
(() => {
  const tools = document.getElementById("tools");
  if (!tools) return;
  const list = document.getElementById("matches");
  const [text, verdict, order, count] = ["text", "verdict", "order", "count"].map((id) => document.getElementById(id));
  const entries = [...list.querySelectorAll(".match")].map((node, place) => ({
    node, place, words: node.textContent.toLowerCase(), ...node.dataset,
  }));
  const compare = {
    place: (a, b) => a.place - b.place,
    score: (a, b) => b.score - a.score || a.place - b.place,
    query: (a, b) => a.query.localeCompare(b.query) || a.place - b.place,
    reference: (a, b) => a.reference.localeCompare(b.reference) || a.place - b.place,
    length: (a, b) => b.length - a.length || a.place - b.place,
  };
  const shown = () => [...list.querySelectorAll(".match:not([hidden])")];

  const filter = () => {
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let number = 0;
    for (const entry of entries) {
      const fits = wanted.every((word) => entry.words.includes(word));
      entry.node.hidden = !fits || (verdict.value !== "" && entry.verdict !== verdict.value);
      number += !entry.node.hidden;
    }
    count.textContent = number === entries.length ? `${number} shown` : `${number} of ${entries.length} shown`;
  };
  const sort = () => list.append(...[...entries].sort(compare[order.value]).map((entry) => entry.node));
  const openAll = (open) => shown().forEach((node) => { node.open = open; });
  const step = (by) => {
    const nodes = shown();
    const at = nodes.findIndex((node) => node.contains(document.activeElement));
    const next = nodes[at < 0 ? 0 : Math.min(nodes.length - 1, Math.max(0, at + by))];
    if (next) next.querySelector("summary").focus();
  };

  text.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  order.addEventListener("change", sort);
  document.getElementById("open").addEventListener("click", () => openAll(true));
  document.getElementById("close").addEventListener("click", () => openAll(false));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === text) {
      if (event.key === "Escape") { text.value = ""; filter(); text.blur(); }
      return;
    }
    if (event.target.matches("select")) return;
    if (event.key === "/") { event.preventDefault(); text.focus(); }
    if (event.key === "j") step(1);
    if (event.key === "k") step(-1);
  });
  tools.hidden = false;
  filter(); // a browser keeps what was typed before the page was loaded again
  sort();
})();
