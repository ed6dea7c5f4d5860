// Turns the drawing of a chain into one that can be turned: by mouse or finger, or the arrow keys.
// A figure without this script keeps its still picture. Nothing is loaded and nothing is stored.
"use strict";
for (const figure of document.querySelectorAll("figure[data-chain]")) {
  const chain = JSON.parse(figure.dataset.chain); // curves, residues, colours, labels
  const canvas = figure.querySelector("canvas"), said = figure.querySelector(".said");
  const radius = Math.max(...chain.curves.flat().map((p) => Math.hypot(...p)), 1);
  const identity = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  let turned = identity, zoom = 1, held = null, waiting = 0;

  const product = (a, b) => a.map((row) => b[0].map((_, k) => row.reduce((sum, x, i) => sum + x * b[i][k], 0)));
  const colour = (text) => [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));

  // Turn by angles about the vertical and the horizontal axis of the screen, in radians.
  function turn(across, down) {
    const [a, b] = [Math.cos(across), Math.sin(across)], [c, d] = [Math.cos(down), Math.sin(down)];
    turned = product([[1, 0, 0], [0, c, -d], [0, d, c]], product([[a, 0, b], [0, 1, 0], [-b, 0, a]], turned));
    redraw();
  }

  function redraw() {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  }

  // Where the points are on the screen, in pixels, and how near, from 0 to 1.
  function placed() {
    const { clientWidth: width, clientHeight: height } = canvas;
    const scale = zoom * 0.92 * Math.min(width / 2, height / 2) / radius;
    return chain.curves.map((curve) => curve.map((p) => {
      const [x, y, z] = turned.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);
      return [width / 2 + scale * x, height / 2 - scale * y, (z / radius + 1) / 2];
    }));
  }

  function draw() {
    const dense = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    canvas.width = canvas.clientWidth * dense;
    canvas.height = canvas.clientHeight * dense;
    pen.scale(dense, dense);
    const page = getComputedStyle(figure).getPropertyValue("--paper").trim();
    const paper = page.length === 4 ? colour(page.replace(/[0-9a-f]/gi, "$&$&")) : colour(page);
    const ink = getComputedStyle(figure).color, curves = placed(), lines = [];
    curves.forEach((curve, k) => curve.slice(1).forEach((end, i) =>
      lines.push([curve[i], end, chain.colours[chain.residues[k][i]]])));
    lines.sort((a, b) => a[0][2] + a[1][2] - b[0][2] - b[1][2]);
    for (const [from, to, of] of lines) {
      const near = (from[2] + to[2]) / 2, fog = 0.5 * (1 - near);
      const mixed = colour(of).map((x, i) => Math.round(x * (1 - fog) + paper[i] * fog));
      // First the paper's colour, wider, which sets a part apart from those behind it.
      for (const [style, more, cap] of [[page, 3, "butt"], [`rgb(${mixed})`, 0, "round"]]) {
        pen.beginPath();
        pen.moveTo(from[0], from[1]);
        pen.lineTo(to[0], to[1]);
        pen.lineCap = cap;
        pen.lineWidth = 2.5 + 4.5 * near + more;
        pen.strokeStyle = style;
        pen.stroke();
      }
    }
    pen.fillStyle = ink;
    pen.font = "bold 14px system-ui, sans-serif";
    const last = curves[curves.length - 1];
    for (const [letter, p] of [["N", curves[0][0]], ["C", last[last.length - 1]]]) pen.fillText(letter, p[0] + 8, p[1] - 8);
  }

  // Name the residue under the pointer.
  function tell(event) {
    const box = canvas.getBoundingClientRect();
    let best = 12, found = "";
    placed().forEach((curve, k) => curve.forEach((p, i) => {
      const away = Math.hypot(event.clientX - box.left - p[0], event.clientY - box.top - p[1]);
      if (away < best) [best, found] = [away, chain.labels[chain.residues[k][i]]];
    }));
    said.textContent = found || said.dataset.help;
  }

  canvas.addEventListener("pointerdown", (event) => {
    held = event;
    canvas.setPointerCapture(event.pointerId);
    tell(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (held === null) return tell(event);
    turn((event.clientX - held.clientX) * 0.01, (event.clientY - held.clientY) * 0.01);
    held = event;
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { held = null; });
  canvas.addEventListener("dblclick", () => { [turned, zoom] = [identity, 1]; redraw(); });
  canvas.addEventListener("keydown", (event) => {
    const keys = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    const factor = { "+": 1.1, "-": 1 / 1.1 }[event.key];
    if (factor) zoom = Math.min(5, Math.max(0.5, zoom * factor));
    if (!factor && !keys[event.key]) return;
    event.preventDefault();
    turn(...(keys[event.key] || [0, 0]));
  });
  figure.classList.add("turning"); // shows the canvas in place of the picture
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
