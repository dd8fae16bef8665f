"use strict";
// Draws the events in #data. Only what is in sight is ever in the document: `layOut` gives every row
// a height once, `paint` fills one stretch of it, `draw` paints the stretch that is scrolled to.
// Text of events is hostile: it goes to the document as text nodes, never as markup.
(() => {
  const AT = 0, NODE = 1, KIND = 2, TEXT = 3, PEER = 4, FLOW = 5, REQUEST = 6; // columns of an event
  const KINDS = ["send", "receive", "call", "effect", "transition", "timer", "fault", "phase", "check"];
  const HIDDEN_FIRST = ["call", "effect"]; // they repeat the arrows: there for whoever asks
  const ALWAYS = ["phase", "fault", "check"]; // stay when one request is chosen: they explain it
  const GUTTER = 136, LANE_MIN = 150, ROW = 20, CHAR = 6.65, OVERSCAN = 400, PAGE = 960;
  const PRINT_PX_MAX = 120 * PAGE; // more pages than anybody staples
  const FOLD_US_MIN = 20_000;
  const { lanes, events, spans, finding } = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const board = $("board"), svg = $("svg"), sheet = $("sheet"), map = $("map"), hover = $("hover");
  const kindOf = (event) => (KINDS.includes(event[KIND]) ? event[KIND] : "other");
  const time = (us) => `${(us / 1000).toLocaleString("en", { minimumFractionDigits: 3 })} ms`;
  const span = (us) => (us >= 1e6 ? `${(us / 1e6).toFixed(2)} s` : us >= 1000 ? `${(us / 1000).toFixed(1)} ms` : `${us} µs`);

  // --- What belongs together: a flow is a send with its receives.
  const sends = new Map(), receives = new Map();
  events.forEach((event, index) => {
    if (!event[FLOW]) return;
    if (event[KIND] === "send") sends.set(event[FLOW], index);
    else if (event[KIND] === "receive") receives.set(event[FLOW], [...(receives.get(event[FLOW]) || []), index]);
  });
  const requestOf = (index) => {
    const send = sends.get(events[index][FLOW]);
    return events[index][REQUEST] || (events[index][FLOW] && send !== undefined ? events[send][REQUEST] : "");
  };

  // --- Filters.
  const counts = new Map();
  events.forEach((event) => counts.set(kindOf(event), (counts.get(kindOf(event)) || 0) + 1));
  const shown = new Set([...counts.keys()].filter((kind) => !HIDDEN_FIRST.includes(kind) || !sends.size));
  let wanted = "", searched = "", chosen = -1;

  function isShown(index) {
    const event = events[index], kind = kindOf(event);
    if (!shown.has(kind)) return false;
    if (searched && !event[TEXT].toLowerCase().includes(searched)) return false;
    return !wanted || requestOf(index) === wanted || ALWAYS.includes(kind);
  }

  // --- Layout: rows of events, folds of silence, arrows between rows.
  let rows = [], rowOf = new Map(), ys = [], folds = [], arrows = [], height = 0, laneWidth = LANE_MIN;

  function layOut() {
    rows = [];
    for (let index = 0; index < events.length; index++) if (isShown(index)) rows.push(index);
    rowOf = new Map(rows.map((index, row) => [index, row]));
    const gaps = rows.map((index, row) => (row ? events[index][AT] - events[rows[row - 1]][AT] : 0));
    const sorted = gaps.filter((gap) => gap > 0).sort((a, b) => a - b);
    const foldFrom = Math.max(FOLD_US_MIN, 20 * (sorted[sorted.length >> 1] || 0));
    ys = []; folds = [];
    let y = 14;
    rows.forEach((index, row) => {
      if (gaps[row] >= foldFrom) {
        folds.push([y + 3, gaps[row]]);
        y += 34;
      } else if (gaps[row]) y += Math.min(14, 1.6 * Math.log2(1 + gaps[row] / 100));
      y += lead(index);
      ys.push(y);
      y += trail(index);
    });
    height = y + 40;
    arrows = [];
    rows.forEach((index, row) => {
      const event = events[index];
      if (event[KIND] !== "send" || event[NODE] < 0 || event[PEER] < 0) return;
      const ends = event[FLOW] ? receives.get(event[FLOW]) || [] : [];
      const visible = ends.filter((end) => rowOf.has(end));
      for (const end of visible) arrows.push([index, ys[row], ys[rowOf.get(end)], end]);
      if (!visible.length) arrows.push([index, ys[row], ys[row] + (ends.length ? 0 : 7), ends.length ? ends[0] : -1]);
    });
    laneWidth = Math.max(LANE_MIN, (board.clientWidth - GUTTER - 24) / (lanes.length + 0.3));
    const width = GUTTER + laneWidth * (lanes.length + 0.3);
    sheet.style.height = `${height}px`;
    sheet.style.width = $("names").style.width = `${width}px`;
    svg.setAttribute("width", width);
    $("names").replaceChildren(...lanes.map((name, lane) => {
      const label = document.createElement("b");
      label.textContent = name;
      label.style.left = `${laneX(lane)}px`;
      return label;
    }));
    $("count").textContent = rows.length === events.length
      ? `${events.length.toLocaleString("en")} events`
      : `${rows.length.toLocaleString("en")} of ${events.length.toLocaleString("en")} events`;
    drawMap();
    draw();
  }

  // A receive whose send is drawn is the tip of an arrow: it needs no line of its own.
  const isTail = (index) => events[index][KIND] === "receive" && rowOf.has(sends.get(events[index][FLOW]));
  const lead = (index) => ({ receive: isTail(index) ? 6 : ROW - 6, send: ROW - 3, phase: 26, check: 22 })[events[index][KIND]] || ROW - 6;
  const trail = (index) => ({ receive: isTail(index) ? 3 : 6, phase: 16, check: 14, fault: 9 })[events[index][KIND]] || 6;
  const laneX = (lane) => GUTTER + laneWidth * (lane + 0.4);
  const firstRow = (y) => {
    let low = 0, high = ys.length;
    while (low < high) { const middle = (low + high) >> 1; if (ys[middle] < y) low = middle + 1; else high = middle; }
    return low;
  };
  function yOf(at) {
    let low = 0, high = rows.length;
    while (low < high) { const middle = (low + high) >> 1; if (events[rows[middle]][AT] < at) low = middle + 1; else high = middle; }
    return low < rows.length ? ys[low] - 10 : height - 20;
  }

  // --- Painting.
  function node(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  }
  const fit = (text, px) => (text.length * CHAR <= px ? text : `${text.slice(0, Math.max(3, Math.floor(px / CHAR) - 1))}…`);

  function paint(target, from, to) {
    const width = GUTTER + laneWidth * (lanes.length + 0.3), out = [];
    target.setAttribute("viewBox", `0 ${from} ${width} ${to - from}`);
    paintBands(out, from, to, width);
    lanes.forEach((_, lane) => out.push(node("line", { class: "lane", x1: laneX(lane), x2: laneX(lane), y1: from, y2: to })));
    for (const [y, gap] of folds) {
      if (y + 30 < from || y > to) continue;
      const group = node("g", { class: "fold" });
      group.append(node("rect", { x: GUTTER, y, width: width - GUTTER, height: 24 }),
        node("text", { x: GUTTER + (width - GUTTER) / 2, y: y + 16 }, `⋯  ${span(gap)} of silence  ⋯`));
      out.push(group);
    }
    for (const arrow of arrows) {
      if (Math.max(arrow[1], arrow[2]) < from || Math.min(arrow[1], arrow[2]) > to) continue;
      paintArrow(out, arrow);
    }
    let labelled = -1e9, last = -1;
    for (let row = firstRow(from - 30); row < rows.length && ys[row] <= to + 30; row++) {
      const at = events[rows[row]][AT];
      if (at !== last && ys[row] - labelled > 13) {
        out.push(node("text", { class: "time", x: GUTTER - 34, y: ys[row] + 3.5 }, time(at)),
          node("line", { class: "tick", x1: GUTTER - 28, x2: GUTTER - 18, y1: ys[row], y2: ys[row] }));
        labelled = ys[row];
      }
      last = at;
      paintEvent(out, rows[row], ys[row], width);
    }
    target.replaceChildren(...out);
  }

  function paintBands(out, from, to, width) {
    for (const [lane, start, end, label] of spans) {
      const top = yOf(start), bottom = Math.max(yOf(end), top + 12);
      if (bottom < from || top > to) continue;
      const x = lane < 0 ? GUTTER - 12 : laneX(lane) - 9, wide = lane < 0 ? 8 : 18;
      const band = node("rect", { class: "span", x, y: top, width: wide, height: bottom - top, rx: 3 });
      band.append(node("title", {}, label));
      out.push(band);
    }
    for (let row = firstRow(from - 30); row < rows.length && ys[row] <= to + 30; row++) {
      const kind = kindOf(events[rows[row]]), y = ys[row];
      if (!ALWAYS.includes(kind)) continue;
      const tall = kind === "phase" ? 26 : 18;
      out.push(node("rect", { class: `band-${kind}`, x: GUTTER - 12, y: y - tall / 2 - 1, width: width - GUTTER + 12, height: tall }));
      if (kind === "phase") out.push(node("line", { class: "phase-line", x1: GUTTER - 12, x2: width, y1: y - 14, y2: y - 14 }));
    }
    if (finding) {
      const y = yOf(finding[0]) + 10;
      if (y + 14 > from && y - 14 < to) out.push(node("rect", { class: "finding-bar", x: GUTTER - 16, y: y - 12, width: 4, height: 24 }));
    }
  }

  function paintArrow(out, [index, y0, y1, end]) {
    const event = events[index], x0 = laneX(event[NODE]), x1 = laneX(event[PEER]);
    const way = Math.sign(x1 - x0) || 1, isChosen = chosen === index || (end >= 0 && chosen === end);
    if (end < 0) { // never arrived: a stump with a cross
      const x = x0 + (way * Math.abs(x1 - x0 || laneWidth)) / 2;
      out.push(node("path", { class: `arrow lost${isChosen ? " chosen" : ""}`, d: `M${x0} ${y0}L${x} ${y1}` }),
        node("path", { class: "cross", d: `M${x - 4} ${y1 - 4}l8 8m0 -8l-8 8` }));
      return;
    }
    const angle = Math.atan2(y1 - y0, x1 - x0), size = 7;
    const tip = (turn) => `${x1 - size * Math.cos(angle + turn)} ${y1 - size * Math.sin(angle + turn)}`;
    out.push(node("path", { class: `arrow${isChosen ? " chosen" : ""}`, d: `M${x0} ${y0}L${x1 - way * 3} ${y1}` }),
      node("path", { class: "head", d: `M${x1} ${y1}L${tip(0.42)}L${tip(-0.42)}Z` }));
  }

  function paintEvent(out, index, y, width) {
    const event = events[index], kind = kindOf(event), lane = event[NODE];
    const group = node("g", { class: `item k-${kind}${index === chosen ? " chosen" : ""}`, "data-index": index });
    const x = lane < 0 ? GUTTER : laneX(lane), tail = isTail(index);
    group.append(node("rect", { class: "hit", x: GUTTER - 12, y: y - (tail ? 4 : 9), width: width - GUTTER + 8, height: tail ? 8 : 18, rx: 3 }));
    if (lane >= 0) group.append(mark(kind, x, y));
    if (!tail) {
      const peer = event[PEER], toLeft = kind === "send" && peer >= 0 && peer < lane;
      const room = lane < 0 ? width - GUTTER - 24
        : kind === "send" && peer >= 0 ? laneWidth * Math.max(1, Math.abs(peer - lane)) - 26
        : ALWAYS.includes(kind) ? width - x - 20 : Math.min(laneWidth - 22, width - x - 16);
      group.append(node("text", {
        class: "halo", x: x + (lane < 0 ? 4 : toLeft ? -11 : 11), y: y + (kind === "send" ? -3 : 3.8),
        "text-anchor": toLeft ? "end" : "start",
      }, fit(event[TEXT], room)));
    }
    out.push(group);
  }

  function mark(kind, x, y) {
    switch (kind) {
      case "fault": return node("path", { class: "mark", d: `M${x} ${y - 6}l6 6l-6 6l-6 -6z` });
      case "check": return node("path", { class: "mark", d: `M${x} ${y - 7}l7 12h-14z` });
      case "timer": return node("path", { class: "mark", d: `M${x - 4} ${y - 5}h8l-8 10h8z` });
      case "transition": return node("path", { class: "mark", d: `M${x - 4} ${y - 4}h8v8h-8z` });
      default: return node("circle", { cx: x, cy: y, r: kind === "receive" ? 2 : 3.2 });
    }
  }

  let from = 0, to = 0, isPending = false;
  function draw() {
    isPending = false;
    const top = board.scrollTop - $("names").offsetHeight;
    from = Math.max(0, Math.min(top - OVERSCAN, height - PAGE)); // a filter may have left less than was scrolled
    to = Math.max(from + 1, Math.min(height, top + board.clientHeight + OVERSCAN));
    svg.style.top = `${from}px`;
    svg.setAttribute("height", to - from);
    paint(svg, from, to);
    drawWindow();
  }
  const soon = () => { if (!isPending) { isPending = true; requestAnimationFrame(draw); } };

  // --- The map of the whole run, beside it.
  let whole = null;
  function drawMap() {
    const scale = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    const wide = map.clientWidth, tall = map.clientHeight;
    map.width = wide * scale; map.height = tall * scale;
    whole = document.createElement("canvas");
    whole.width = map.width; whole.height = map.height;
    const pen = whole.getContext("2d");
    pen.scale(scale, scale);
    const at = (y) => (y / height) * tall, lane = (index) => 8 + ((wide - 16) * (index + 0.5)) / lanes.length;
    const tone = (kind) => style.getPropertyValue(`--${kind === "receive" ? "send" : kind}`) || "gray";
    pen.globalAlpha = Math.max(0.12, Math.min(0.8, tall / rows.length));
    for (const [index, y0, y1] of arrows) {
      pen.strokeStyle = tone("send"); pen.lineWidth = 0.7; pen.beginPath();
      pen.moveTo(lane(events[index][NODE]), at(y0)); pen.lineTo(lane(events[index][PEER]), at(y1)); pen.stroke();
    }
    rows.forEach((index, row) => {
      const event = events[index], kind = kindOf(event);
      if (kind === "receive" || kind === "send") return;
      pen.globalAlpha = ALWAYS.includes(kind) ? 1 : 0.5;
      pen.fillStyle = tone(kind);
      if (ALWAYS.includes(kind)) pen.fillRect(0, at(ys[row]), wide, kind === "check" ? 2.5 : 1);
      else if (event[NODE] >= 0) pen.fillRect(lane(event[NODE]) - 2, at(ys[row]), 4, 1);
    });
    if (finding) { pen.globalAlpha = 1; pen.fillStyle = tone("bad"); pen.fillRect(0, at(yOf(finding[0])) - 1, wide, 3); }
  }
  function drawWindow() {
    const pen = map.getContext("2d"), scale = window.devicePixelRatio || 1;
    pen.clearRect(0, 0, map.width, map.height);
    if (whole && whole.width) pen.drawImage(whole, 0, 0);
    pen.fillStyle = "#8888"; pen.globalAlpha = 0.35;
    pen.fillRect(0, (board.scrollTop / height) * map.height, map.width, Math.max(6 * scale, (board.clientHeight / height) * map.height));
    pen.globalAlpha = 1;
  }
  const follow = (event) => {
    if (event.buttons !== 1) return;
    const box = map.getBoundingClientRect();
    board.scrollTop = ((event.clientY - box.top) / box.height) * height - board.clientHeight / 2;
  };
  map.addEventListener("pointerdown", (event) => { map.setPointerCapture(event.pointerId); follow(event); });
  map.addEventListener("pointermove", follow);

  // --- One event: on hover beside the pointer, chosen below the drawing.
  function words(index) {
    const event = events[index], peer = event[PEER] < 0 ? "" : ` ${event[KIND] === "receive" ? "←" : "→"} ${lanes[event[PEER]]}`;
    const lines = [`${time(event[AT])}   ${event[NODE] < 0 ? "all" : lanes[event[NODE]]}${peer}   ${event[KIND]}`, event[TEXT]];
    const send = sends.get(event[FLOW]), ends = receives.get(event[FLOW]);
    if (event[FLOW] && event[KIND] === "receive" && send !== undefined) lines.push(`was ${span(event[AT] - events[send][AT])} on the way`);
    if (event[FLOW] && event[KIND] === "send") {
      lines.push(ends ? ends.map((end) => `arrived after ${span(events[end][AT] - event[AT])}`).join(", ") : "never arrived");
    }
    return lines;
  }
  function write(target, index) {
    const [first, second, third] = words(index);
    const head = document.createElement("span"), text = document.createElement("strong"), tail = document.createElement("span");
    head.textContent = `${first}  `; text.textContent = second; tail.textContent = third ? `  ${third}` : "";
    target.replaceChildren(head, document.createElement("br"), text, tail);
  }
  function choose(index, isMoving = true) {
    chosen = index;
    if (index < 0) { $("detail").replaceChildren(); draw(); return; }
    write($("detail"), index);
    const row = rowOf.get(index), y = ys[row] + $("names").offsetHeight;
    if (isMoving && (y < board.scrollTop + 60 || y > board.scrollTop + board.clientHeight - 40)) board.scrollTop = y - board.clientHeight / 2;
    try { history.replaceState(null, "", `#e${index}`); } catch { /* a file may not have a history */ }
    draw();
  }
  const indexAt = (event) => { const item = event.target.closest?.(".item"); return item ? Number(item.dataset.index) : -1; };
  svg.addEventListener("click", (event) => choose(indexAt(event), false));
  svg.addEventListener("pointermove", (event) => {
    const index = indexAt(event);
    hover.hidden = index < 0;
    if (index < 0) return;
    write(hover, index);
    const { offsetWidth: wide, offsetHeight: tall } = hover;
    hover.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - wide - 12))}px`;
    hover.style.top = `${event.clientY + tall + 24 > innerHeight ? event.clientY - tall - 12 : event.clientY + 16}px`;
  });
  svg.addEventListener("pointerleave", () => { hover.hidden = true; });
  board.addEventListener("scroll", () => { hover.hidden = true; soon(); });
  board.addEventListener("keydown", (event) => {
    const row = rowOf.get(chosen) ?? firstRow(board.scrollTop) - 1;
    const other = chosen < 0 ? -1 : events[chosen][KIND] === "send" ? (receives.get(events[chosen][FLOW]) || [-1])[0] : sends.get(events[chosen][FLOW]) ?? -1;
    const moves = { ArrowDown: row + 1, j: row + 1, ArrowUp: row - 1, k: row - 1, Home: 0, End: rows.length - 1, Enter: rowOf.get(other) };
    if (event.key === "Escape") choose(-1);
    if (!(event.key in moves) || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const next = moves[event.key];
    if (next !== undefined && next >= 0 && next < rows.length) choose(rows[next]);
  });

  function goToFinding() {
    const checks = events.findIndex((event) => event[KIND] === "check" && event[AT] >= finding[0]);
    const later = events.findIndex((event) => event[AT] >= finding[0]);
    const index = checks >= 0 ? checks : later >= 0 ? later : events.length - 1;
    if (!rowOf.has(index)) { reset(); shown.add(kindOf(events[index])); makeKinds(); layOut(); }
    choose(index);
  }

  // --- The tools above.
  function makeKinds() {
    const known = [...KINDS, "other"].filter((kind) => counts.has(kind));
    $("kinds").replaceChildren($("kinds").querySelector("legend"), ...known.map((kind) => {
      const label = document.createElement("label"), box = document.createElement("input"), count = document.createElement("small");
      label.className = `k-${kind}`;
      box.type = "checkbox"; box.checked = shown.has(kind);
      count.textContent = counts.get(kind).toLocaleString("en");
      label.append(box, kind, count);
      box.addEventListener("change", () => { if (box.checked) shown.add(kind); else shown.delete(kind); refilter(); });
      return label;
    }));
  }
  function refilter() {
    const anchor = rows[firstRow(board.scrollTop)];
    layOut();
    if (anchor === undefined) return;
    const row = rows.findIndex((index) => index >= anchor); // stay where the reader was
    board.scrollTop = row < 0 ? height : Math.max(0, ys[row] - 20);
    draw();
  }
  function reset() { searched = wanted = ""; $("search").value = ""; $("request").value = ""; }
  const requests = [...new Set(events.map((event) => event[REQUEST]).filter(Boolean))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  $("request").replaceChildren(new Option("all requests", ""), ...requests.map((name) => new Option(name, name)));
  $("request").hidden = requests.length < 2;
  $("request").addEventListener("change", () => { wanted = $("request").value; refilter(); });
  $("search").addEventListener("input", () => { searched = $("search").value.trim().toLowerCase(); refilter(); });
  $("tools").addEventListener("submit", (event) => event.preventDefault());
  $("to-finding")?.addEventListener("click", () => { goToFinding(); board.scrollIntoView({ block: "nearest" }); });

  // --- Paper has no scrolling: the rows in pieces that fit a page.
  window.addEventListener("beforeprint", () => {
    const width = GUTTER + laneWidth * (lanes.length + 0.3), pieces = [];
    for (let y = 0; y < Math.min(height, PRINT_PX_MAX); y += PAGE) {
      const end = Math.min(y + PAGE, height), head = 24;
      const piece = node("svg", { width, height: end - y + head });
      paint(piece, y, end);
      piece.setAttribute("viewBox", `0 ${y - head} ${width} ${end - y + head}`);
      piece.append(node("rect", { x: 0, y: y - head, width, height: head, fill: "#fff" }));
      lanes.forEach((name, lane) => piece.append(node("text", { x: laneX(lane), y: y - 9, "text-anchor": "middle" }, name)));
      pieces.push(piece);
    }
    $("print").replaceChildren(...pieces);
  });
  window.addEventListener("afterprint", () => $("print").replaceChildren());
  window.addEventListener("resize", layOut);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", layOut);

  $("drawing").hidden = false;
  $("log").open = false;
  makeKinds();
  layOut();
  const asked = /^#e(\d+)$/.exec(location.hash);
  if (asked && rowOf.has(Number(asked[1]))) choose(Number(asked[1]));
  else if (finding && rows.length > 60) goToFinding();
})();
