"use strict";
(() => {
  const told = JSON.parse(document.getElementById("charts").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)");
  const options = { responsive: true, displayModeBar: false, scrollZoom: false };

  // A colour stands as "@name" in a chart; any other text, as a category, is left alone.
  const paint = (part, palette, colour = false) => {
    if (typeof part === "string") return colour && part[0] === "@" && palette[part.slice(1)] || part;
    if (Array.isArray(part)) return part.map((one) => paint(one, palette, colour));
    if (part === null || typeof part !== "object") return part;
    return Object.fromEntries(Object.entries(part).map(([name, one]) => [name, paint(one, palette, /color(scale)?$/.test(name))]));
  };

  const webgl = (() => {
    const canvas = document.createElement("canvas");
    return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
  })();

  const hovers = (trace) => {
    if (!trace.ids) return trace;
    const head = trace.type === "scatter" && trace.mode !== "markers" ? "%{x}, %{y}<br>" : "";
    const { ids, ...rest } = trace;
    return { ...rest, customdata: ids, text: ids.map((id) => told.hover[id] || ""), hovertemplate: head + "%{text}<extra></extra>" };
  };

  const figureOf = (place) => {
    const figure = paint(told.figures[place.dataset.chart], told.palette[dark.matches ? "dark" : "light"]);
    const layout = { ...figure.layout, uirevision: "kept" };
    if (coarse.matches && !figure.needs) layout.dragmode = false; // a finger scrolls the page
    if (layout.scene && place.clientWidth < 500) { // a narrow screen sees it from further away
      const { eye } = layout.scene.camera;
      layout.scene.camera.eye = { x: 1.4 * eye.x, y: 1.4 * eye.y, z: 1.4 * eye.z };
    }
    if (figure.width) layout.width = Math.max(figure.width, place.parentElement.clientWidth);
    return { data: figure.data.map(hovers), layout };
  };

  const say = (place, text) => {
    const said = document.createElement("p");
    said.className = "missing";
    said.textContent = text;
    place.style.minHeight = "0";
    place.replaceChildren(said);
    place.removeAttribute("role"); // it is text now
    place.removeAttribute("aria-label");
  };

  const draw = async (place) => {
    if (told.figures[place.dataset.chart].needs && !webgl) {
      say(place, "This picture needs WebGL, which this browser does not offer. Its trials are in the other pictures too, and in results.parquet.");
      document.querySelectorAll(`[data-of="${place.dataset.chart}"]`).forEach((button) => { button.hidden = true; });
      return;
    }
    try {
      const { data, layout } = figureOf(place);
      await Plotly.react(place, data, layout, options);
      place.dataset.drawn = "yes";
    } catch (error) {
      say(place, `This picture could not be drawn: ${error.message}`);
    }
  };

  const places = [...document.querySelectorAll("[data-chart]")];
  let turn = 0;
  const drawAll = async () => {
    const mine = ++turn; // a change of colours while drawing begins anew
    for (const place of places) {
      if (mine !== turn) return;
      await draw(place);
      await new Promise((go) => setTimeout(go));
    }
    document.body.dataset.drawn = dark.matches ? "dark" : "light";
  };
  dark.addEventListener("change", drawAll);

  document.querySelectorAll("[data-turn]").forEach((button) => button.addEventListener("click", () => {
    const place = document.getElementById(`chart-${button.dataset.of}`);
    const { x, y, z } = place._fullLayout.scene.camera.eye;
    const angle = Number(button.dataset.turn);
    const eye = { x: x * Math.cos(angle) - y * Math.sin(angle), y: x * Math.sin(angle) + y * Math.cos(angle), z };
    Plotly.relayout(place, { "scene.camera.eye": eye });
  }));

  const compared = (one, other) => {
    const [a, b] = [parseFloat(one), parseFloat(other)];
    return Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(other) : a - b;
  };
  document.querySelectorAll("table[data-sorts] th button").forEach((button) => button.addEventListener("click", () => {
    const head = button.parentElement;
    const table = head.closest("table");
    const up = head.getAttribute("aria-sort") === "descending" || !head.hasAttribute("aria-sort") ? "ascending" : "descending";
    table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up);
    const rows = [...table.tBodies[0].rows];
    const sign = up === "ascending" ? 1 : -1;
    rows.sort((one, other) => sign * compared(one.cells[head.cellIndex].textContent, other.cells[head.cellIndex].textContent));
    table.tBodies[0].append(...rows);
  }));

  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const text = button.parentElement.previousElementSibling;
    const status = button.nextElementSibling;
    getSelection().selectAllChildren(text);
    let copied = false;
    try {
      await navigator.clipboard.writeText(text.textContent);
      copied = true;
    } catch {
      copied = document.execCommand("copy"); // where a page from a file may not use the clipboard
    }
    status.textContent = copied ? "copied" : "not copied: it is selected, copy it by hand";
  }));

  drawAll();
})();
