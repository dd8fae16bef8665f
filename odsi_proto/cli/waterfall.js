"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  // Columns of a step, as `waterfall.py` writes them. Times are microseconds since the first row was sent.
  const [POSITION, POSITIONS, BEGUN, EMBED, SEND, RETURN, ARRIVED, HEAD, SAMPLE, DONE, HOPS] = Array(11).keys();
  const HOP_PARTS = ["transfer", "queue", "compute", "coordination"];
  const REMAINING = 4, FLAGS = 5, LATE = 1, OVER_BUDGET = 8;
  const ROW = 18, PRINTED_MAX = 240, STAGES_IN_FULL = 6;
  const KINDS = [
    ["caller", "the program that takes the tokens"], ["embed", "client: embed, send, head, sample"], ["transfer", "on the way"],
    ["queue", "waits for its turn"], ["compute", "in the layers"], ["coordination", "else in the stage"], ["unaccounted", "nobody measured it"],
  ];
  const [firstBudget, tokenBudget] = data.budgets || [Infinity, Infinity];
  const ms = (us) => (us / 1000).toLocaleString("en", { minimumFractionDigits: us < 1e5 ? 2 : 1, maximumFractionDigits: us < 1e5 ? 2 : 1 });
  const made = (name, cls, text) => {
    const element = document.createElement(name);
    if (cls) element.className = cls;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // --- A step as a row: where it begins, its parts, and what it missed.
  const steps = data.steps.filter((step) => step[ARRIVED] >= 0);
  const chunks = steps.filter((step) => step[POSITION] < data.prompt_positions);
  const decode = steps.slice(chunks.length);

  function rowOf(step, before, zero, isFirst) {
    const sent = step[BEGUN] + step[EMBED], parts = [];
    const put = (kind, label, from, took, stage, said = took) => {
      if (took > 0) parts.push({ kind, label, from: from - zero, took, stage, said });
    };
    if (before) put("caller", "caller", before[DONE], step[BEGUN] - before[DONE]);
    put("embed", "embed", step[BEGUN], step[EMBED]);
    put("send", "send", sent, step[SEND]);
    let at = sent + step[SEND];
    let known = step[RETURN];
    for (const hop of step[HOPS]) if (hop) known += hop[0] + hop[1] + hop[2] + hop[3];
    const away = Math.max(0, step[ARRIVED] - at), shrink = known > away && known ? away / known : 1;
    step[HOPS].forEach((hop, stage) => {
      if (!hop) return;
      HOP_PARTS.forEach((kind, index) => {
        put(kind, `stage ${stage} ${kind}`, at, hop[index] * shrink, stage, hop[index]);
        at += hop[index] * shrink;
      });
    });
    put("return", "return", at, step[RETURN] * shrink, undefined, step[RETURN]);
    at += step[RETURN] * shrink;
    const head = step[DONE] - step[HEAD] - step[SAMPLE];
    put("unaccounted", "unaccounted", at, head - at);
    put("head", "head", head, step[HEAD]);
    put("sample", "sample", step[DONE] - step[SAMPLE], step[SAMPLE]);
    const start = before ? before[DONE] : step[BEGUN];
    const budget = isFirst ? firstBudget : tokenBudget;
    const due = isFirst ? chunks[0][BEGUN] + chunks[0][EMBED] + firstBudget : sent + tokenBudget;
    const isLast = !isFirst || step === chunks[chunks.length - 1];
    const spent = step[HOPS].findIndex((hop) => hop && (hop[REMAINING] === 0 || hop[FLAGS] & LATE));
    const slow = step[HOPS].flatMap((hop, stage) => (hop && hop[FLAGS] & OVER_BUDGET ? [stage] : []));
    return {
      parts, begins: start - zero, took: step[DONE] - start, ends: step[DONE] - zero,
      due: budget === Infinity ? Infinity : due - zero,
      missed: (isLast && step[ARRIVED] > due) || spent >= 0, spent, slow,
      over: known > away ? known - away : 0, count: 1,
    };
  }
  const origin = chunks.length ? chunks[0][BEGUN] : 0;
  const chunkRows = chunks.map((step, index) => Object.assign(rowOf(step, null, origin, true), {
    name: `${step[POSITION]}-${step[POSITION] + step[POSITIONS] - 1}`, small: index ? "" : "prompt",
  }));
  const tokenRows = decode.map((step, index) => {
    const before = index ? decode[index - 1] : chunks[chunks.length - 1];
    // Without the prompt's rows a token begins where the client begins with it.
    return Object.assign(rowOf(step, before, before ? before[DONE] : step[BEGUN], false), {
      name: String(index + 1), small: data.pieces[index + 1] ? JSON.stringify(data.pieces[index + 1]) : "",
    });
  });

  /** Means of neighbours, part by part. */
  function grouped(rows, size) {
    if (size === 1) return rows;
    const out = [];
    for (let first = 0; first < rows.length; first += size) {
      const some = rows.slice(first, first + size), sums = new Map();
      for (const row of some) for (const part of row.parts) {
        const sum = sums.get(part.label) || { ...part, took: 0, said: 0, from: 0 };
        sum.took += part.took / some.length;
        sum.said += part.said / some.length;
        sums.set(part.label, sum);
      }
      let at = 0;
      const parts = [...sums.values()].sort((a, b) => order(a) - order(b));
      for (const part of parts) { part.from = at; at += part.took; }
      const mean = (key) => some.reduce((sum, row) => sum + row[key], 0) / some.length;
      const misses = some.filter((row) => row.missed).length;
      out.push({ parts, begins: 0, took: mean("took"), ends: mean("took"), due: mean("due"), over: 0, spent: -1, slow: [],
        missed: misses > 0, count: some.length, misses,
        name: `${first + 1}-${first + some.length}`, small: `mean of ${some.length}` });
    }
    return out;
  }
  const order = (part) => part.stage !== undefined ? 10 + 4 * part.stage + HOP_PARTS.indexOf(part.kind)
    : { caller: 0, embed: 1, send: 2, return: 1e6, unaccounted: 1e6 + 1, head: 1e6 + 2, sample: 1e6 + 3 }[part.kind];

  // --- Panels.
  function niceStep(range) {
    const rough = range / 8, power = 10 ** Math.floor(Math.log10(rough || 1));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough) || power;
  }

  class Panel {
    constructor(section, rows) {
      this.board = section.querySelector(".board");
      this.sheet = section.querySelector(".sheet");
      this.axis = section.querySelector(".axis");
      this.chosen = -1;
      this.show(rows, 1);
      this.board.addEventListener("scroll", () => this.draw());
      this.board.addEventListener("keydown", (event) => {
        const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 20, PageUp: -20, Home: -1e9, End: 1e9 }[event.key];
        if (by === undefined) return;
        event.preventDefault();
        this.choose(Math.max(0, Math.min(this.rows.length - 1, this.chosen + by)));
      });
      this.sheet.addEventListener("mousemove", (event) => this.hover(event));
      this.sheet.addEventListener("mouseleave", () => { $("hover").hidden = true; });
      this.sheet.addEventListener("click", (event) => {
        const row = event.target.closest(".row");
        if (row) this.choose(Number(row.dataset.index));
      });
    }
    show(rows, range) {
      this.rows = rows;
      this.range = range;
      this.sheet.style.height = `${rows.length * ROW}px`;
      const step = niceStep(range);
      this.grid = [];
      for (let at = 0; at <= range; at += step) this.grid.push(at);
      this.axis.replaceChildren(...this.grid.map((at) => {
        const label = made("span", "", at === 0 ? "0 ms" : (at / 1000).toLocaleString("en", { maximumFractionDigits: 3 }));
        label.style.left = `${(100 * at) / range}%`;
        return label;
      }));
      this.draw();
    }
    draw(everything = false) {
      const top = this.board.scrollTop, seen = this.board.clientHeight || 400;
      const first = everything ? 0 : Math.max(0, Math.floor(top / ROW) - 8);
      const end = everything ? this.rows.length : Math.min(this.rows.length, Math.ceil((top + seen) / ROW) + 8);
      const out = [];
      for (let index = first; index < end; index += 1) out.push(this.row(index));
      this.sheet.replaceChildren(...out);
    }
    row(index) {
      const row = this.rows[index], percent = (us) => `${(100 * us) / this.range}%`;
      const element = made("div", `row${row.missed ? " missed" : ""}${index === this.chosen ? " chosen" : ""}`);
      element.style.top = `${index * ROW}px`;
      element.dataset.index = index;
      const name = made("span", "name", `${row.name} `), bars = made("span", "bars");
      name.append(made("small", "", row.small));
      for (const at of this.grid) {
        const line = made("span", "grid");
        line.style.left = percent(at);
        bars.append(line);
      }
      let stage;
      row.parts.forEach((part, number) => {
        const bar = made("i", `p-${part.kind}`);
        if (part.stage !== undefined && part.stage !== stage) bar.classList.add("stage-start");
        stage = part.stage;
        bar.style.left = percent(part.from);
        bar.style.width = percent(part.took);
        bar.dataset.part = number;
        if (part.kind === "compute" && part.took / this.range > 0.02) bar.append(made("b", "", String(part.stage)));
        bars.append(bar);
      });
      if (row.due <= this.range) {
        const line = made("span", "line");
        line.style.left = percent(row.due);
        bars.append(line);
      }
      if (row.ends > this.range) bars.append(made("span", "more", "›"));
      element.append(name, bars, made("span", "took", ms(row.took)));
      return element;
    }
    lines(index, chosenPart) {
      const row = this.rows[index], out = [];
      const say = (text, isChosen) => out.push(made(isChosen ? "b" : "span", "", `${text}\n`));
      say(`${row.name} ${row.small}   ${ms(row.took)} ms`);
      const isShort = data.stages.length <= STAGES_IN_FULL;
      row.parts.forEach((part, number) => {
        // Of a long path a line for each stage, and the parts of the one that is pointed at.
        const isAsked = chosenPart >= 0 && row.parts[chosenPart].stage === part.stage;
        if (part.stage !== undefined && !isShort && !isAsked) {
          if (row.parts[number - 1]?.stage === part.stage) return;
          const all = row.parts.filter((other) => other.stage === part.stage).reduce((sum, other) => sum + other.said, 0);
          say(`${ms(all).padStart(10)}  stage ${part.stage}`);
          return;
        }
        const who = part.stage === undefined ? "" : `  ${data.stages[part.stage].name} ${data.stages[part.stage].layers}`;
        say(`${ms(part.said).padStart(10)}  ${part.label}${part.kind === "transfer" ? who : ""}`, number === chosenPart);
      });
      if (row.over) say(`the estimates of the way are ${ms(row.over)} ms too long: drawn shorter`);
      if (row.spent >= 0) say(`nothing was left at stage ${row.spent}`);
      if (row.slow.length) say(`longer than its own budget: stage ${row.slow.join(", ")}`);
      if (row.missed && row.spent < 0) say(row.misses > 1 ? `${row.misses} missed their deadline` : "missed its deadline");
      return out;
    }
    hover(event) {
      const row = event.target.closest(".row"), box = $("hover");
      if (!row) return;
      const part = event.target.closest("[data-part]");
      box.replaceChildren(...this.lines(Number(row.dataset.index), part ? Number(part.dataset.part) : -1));
      box.hidden = false;
      box.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.offsetWidth - 8))}px`;
      box.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 8))}px`;
    }
    choose(index) {
      if (!this.rows.length) return;
      this.chosen = index;
      const top = index * ROW, seen = this.board.clientHeight;
      if (top < this.board.scrollTop || top + ROW > this.board.scrollTop + seen) this.board.scrollTop = top - seen / 2;
      this.draw();
      $("detail").textContent = this.lines(index, -1).map((line) => line.textContent.trim().replace(/\s+/g, " ")).join(" · ");
    }
  }

  // --- The whole page.
  const quantile = (values, part) => values.length ? [...values].sort((a, b) => a - b)[Math.ceil(part * values.length) - 1] : 0;
  function rangeOf(rows, part) {
    const whole = quantile(rows.map((row) => row.ends), part) * 1.04 || 1000;
    const due = Math.max(...rows.slice(0, 1).map((row) => row.due), 0);
    return due < 3 * whole ? Math.max(whole, due * 1.04) : whole;
  }
  const noted = (rows, panel, budget, what) => {
    const misses = rows.filter((row) => row.missed).length;
    const far = rows.length && rows[0].due > panel.range && budget !== Infinity
      ? ` The deadline, ${(budget / 1e6).toLocaleString("en")} s after the sending, is beyond the scale.` : "";
    return `${what}${far} ${misses ? `${misses} missed.` : ""}`;
  };

  for (const [kind, text] of KINDS) {
    const item = made("li");
    item.append(made("i", `p-${kind}`), `${kind === "embed" ? "client" : kind}: ${text.replace("client: ", "")}`);
    $("legend").append(item);
  }
  for (const [kind, text] of [["deadline", "deadline"], ["miss", "missed, or nothing was left at a stage"]]) {
    const item = made("li");
    item.append(made("i", `p-${kind}`), text);
    $("legend").append(item);
  }
  $("drawing").hidden = false;

  const firstPanel = new Panel($("first"), chunkRows);
  firstPanel.show(chunkRows, rangeOf(chunkRows, 1));
  $("first-note").textContent = chunkRows.length
    ? noted(chunkRows, firstPanel, firstBudget, `${chunks.length === 1 ? "One chunk" : `${chunks.length} chunks`} of the prompt; all rows have the same zero, when the client began with the first.`)
    : "The prompt's rows never came back.";
  const tokenPanel = new Panel($("tokens"), tokenRows);
  let shown = tokenRows;
  function showTokens() {
    shown = grouped(tokenRows, Number($("group").value));
    tokenPanel.chosen = -1;
    tokenPanel.show(shown, rangeOf(shown, $("scale").value === "fit" ? 1 : 0.95));
    $("tokens-note").textContent = tokenRows.length
      ? noted(tokenRows, tokenPanel, tokenBudget, "Each row begins when the token before it was sampled. Numbers in the bars are stages.")
      : "There was no further token.";
    drawOverview();
  }
  for (const size of [10, 50, 200]) {
    if (tokenRows.length < 3 * size) continue;
    const option = made("option", "", `means of ${size}`);
    option.value = size;
    $("group").append(option);
  }
  if (quantile(tokenRows.map((row) => row.ends), 1) > 3 * quantile(tokenRows.map((row) => row.ends), 0.5)) $("scale").value = "typical";
  $("miss").disabled = !tokenRows.some((row) => row.missed);
  $("miss").addEventListener("click", () => {
    const from = tokenPanel.chosen + 1, next = shown.findIndex((row, index) => index >= from && row.missed);
    tokenPanel.choose(next >= 0 ? next : shown.findIndex((row) => row.missed));
  });
  $("group").addEventListener("change", showTokens);
  $("scale").addEventListener("change", showTokens);

  function drawOverview() {
    const canvas = $("overview"), width = canvas.clientWidth, height = 84, ratio = devicePixelRatio || 1;
    canvas.hidden = tokenRows.length < 2;
    if (canvas.hidden || !width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    pen.scale(ratio, ratio);
    const most = quantile(tokenRows.map((row) => row.took), tokenRows.length > 50 ? 0.995 : 1) * 1.1 || 1;
    const columns = Math.min(width, tokenRows.length), wide = width / columns;
    const tone = { embed: "client", send: "client", head: "client", sample: "client", return: "transfer", unaccounted: "hatch" };
    for (let column = 0; column < columns; column += 1) {
      const some = tokenRows.slice(Math.floor((column * tokenRows.length) / columns), Math.max(1, Math.floor(((column + 1) * tokenRows.length) / columns)));
      const worst = some.reduce((a, b) => (b.took > a.took ? b : a), some[0]);
      let y = height;
      for (const part of worst.parts) {
        const high = (part.took / most) * (height - 8);
        pen.fillStyle = colour(tone[part.kind] || part.kind);
        pen.fillRect(column * wide, y - high, wide + 0.4, high);
        y -= high;
      }
      if (some.some((row) => row.missed)) {
        pen.fillStyle = colour("bad");
        pen.fillRect(column * wide, 0, Math.max(2, wide), 5);
      }
    }
    if (tokenBudget < most) {
      const y = height - (tokenBudget / most) * (height - 8);
      pen.strokeStyle = colour("bad");
      pen.setLineDash([5, 4]);
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
    }
    pen.font = "10.5px monospace";
    pen.fillStyle = colour("card");
    pen.fillRect(2, 8, pen.measureText(`${ms(most)} ms`).width + 5, 14);
    pen.fillStyle = colour("ink");
    pen.fillText(`${ms(most)} ms`, 4, 18);
  }
  $("overview").addEventListener("click", (event) => {
    const part = event.offsetX / $("overview").clientWidth;
    tokenPanel.choose(Math.max(0, Math.min(shown.length - 1, Math.floor(part * shown.length))));
  });
  addEventListener("resize", () => { firstPanel.draw(); showTokens(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawOverview);

  // On paper there is no scrolling: all rows, or means of as many as it takes to fit a few pages.
  addEventListener("beforeprint", () => {
    const size = Math.max(Number($("group").value), Math.ceil(tokenRows.length / PRINTED_MAX));
    const rows = grouped(tokenRows, size);
    tokenPanel.show(rows, rangeOf(rows, 1));
    tokenPanel.draw(true);
    firstPanel.draw(true);
  });
  addEventListener("afterprint", showTokens);
  showTokens();
})();
